"""What to do next: in a world of its own, killed between any two steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.fleet.core import decide as core
from services.fleet.core import health
from services.fleet.core.decide import Local, decide
from services.fleet.core.health import CENTRE, STATUS, Health, Watch
from services.fleet.core.journal import (
    Attempt,
    Damaged,
    Failure,
    Journal,
    Target,
    from_json,
)

WATCH_S = 10.0


# -- a model of a box ---------------------------------------------------------------------


class Killed(Exception):
    """kill -9, or the power."""


@dataclass
class Box:
    """A configuration is a word. "bad…" stops the PLC, "wrong…" does not pass the check, "cut…"
    loses the centre. What survives a kill is durable: all but ``memory``.
    """

    disk: list[str] = field(default_factory=lambda: ["good0", "good0"])
    """The layout, and config.yaml, which is placed last."""
    runs: str = "good0"
    applied: str = "good0"
    before: str = ""
    journal: Journal = field(default_factory=Journal)
    kept: list[str] = field(default_factory=list)
    now_s: float = 0.0
    fuel: int = 10**9
    """Steps until it is killed."""
    plc_works: bool = True
    """Apart from what a configuration does to it."""
    # memory
    target: Target | None = None
    watch: Watch | None = None

    def spend(self) -> None:
        self.fuel -= 1
        if self.fuel < 0:
            raise Killed

    def write(self, journal: Journal) -> None:
        self.spend()
        assert from_json(json.loads(json.dumps(journal.as_json()))) == journal
        self.journal = journal
        self.spend()

    def start(self) -> None:
        """After a kill."""
        self.target = self.watch = None
        self.fuel = 10**9
        if self.journal.attempt is not None:
            self.journal = self.journal.again()

    @property
    def local(self) -> Local:
        whole = self.disk[1] if self.disk[0] == self.disk[1] else "mixed"
        ours = self.journal.running.sha256 if self.journal.running else self.applied
        return Local(whole, whole != ours)

    def works(self) -> bool:
        return self.plc_works and not self.runs.startswith("bad")

    def place(self, word: str) -> None:
        for part in (0, 1):
            self.disk[part] = word
            self.spend()

    def act(self) -> str:
        """One turn of the loop."""
        action = decide(self.journal, self.target, self.local, self.watch, self.now_s)
        attempt, target = self.journal.attempt, self.target
        if action.what == "check":
            assert target is not None
            if target.sha256.startswith("wrong"):
                self.write(self.journal.refuse(target, "wrong", ()))
                return action.what
            if self.journal.running is None or self.local.drifted:
                self.kept.append(self.disk[1])
            self.before = self.applied
            self.spend()
            worked = ["status", CENTRE, *(["plc:a"] if self.works() else [])]
            self.write(self.journal.begin(Attempt(target, tuple(worked))))
        elif action.what == "apply":
            assert attempt is not None
            self.place(attempt.target.sha256)
            self.runs = attempt.target.sha256
            self.spend()
            self.applied = self.runs
            self.spend()
            self.write(self.journal.watch())
        elif action.what == "watch" and self.watch is None:
            assert attempt is not None
            self.watch = Watch(attempt.worked, WATCH_S, self.now_s)
        elif action.what == "revert":
            self.write(self.journal.revert(action.why))
        elif action.what == "restore":
            assert attempt is not None
            if self.applied == attempt.target.sha256 and self.disk[1] not in (
                attempt.target.sha256,
                self.before,
            ):
                self.kept.append(self.disk[1])
            self.place(self.before)
            self.runs = self.before
            self.spend()
            self.applied = self.runs
            self.watch = None
            self.write(self.journal.reverted())
        elif action.what == "settle":
            self.watch = None
            self.write(self.journal.settle())
        return action.what

    def turn(self, seconds: float = 1.0) -> str:
        self.now_s += seconds
        if self.watch is not None:
            said = {} if self.works() else {"plc:a": "off"}
            self.watch.see(Health({"plc:a": self.works()}, said, {}, {}, 0), self.now_s)
            if not self.runs.startswith("cut"):
                self.watch.reached(self.now_s)
        return self.act()


def want(version: int, word: str, **more: object) -> Target:
    return Target(version, word, **more)  # type: ignore[arg-type]


WORDS = st.sampled_from(["good1", "good2", "bad1", "bad2", "wrong1", "cut1"])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), WORDS, st.booleans()),
        st.tuples(st.just("edit"), st.sampled_from(["local1", "local2"]), st.booleans()),
        st.tuples(st.just("turns"), st.integers(1, 25), st.none()),
        st.tuples(st.just("kill"), st.integers(0, 14), st.none()),
        st.tuples(st.just("plc"), st.booleans(), st.none()),
    ),
    max_size=14,
)


@settings(max_examples=600)
@given(EVENTS)
def test_whatever_happens_a_box_ends_up_whole(events: list[tuple[str, object, object]]) -> None:
    box, version = Box(), 0
    edits: set[str] = set()
    wanted: Target | None = None
    for kind, what, more in events:
        if kind == "want":
            version += 1
            wanted = want(version, str(what), overwrite=bool(more))
            box.target = wanted
        elif kind == "edit" and box.journal.attempt is None:
            word = f"{what}-{len(edits)}"
            edits.add(word)
            box.disk = [word, word]
            if more:  # and applied by hand
                box.runs = box.applied = word
        elif kind == "turns":
            for _ in range(int(str(what))):
                box.turn()
        elif kind == "kill":
            box.fuel = int(str(what))
            try:
                for _ in range(30):
                    box.turn()
            except Killed:
                box.start()
            box.fuel = 10**9
            box.target = wanted
        elif kind == "plc":
            box.plc_works = bool(what)
        assert box.runs != "mixed"
        assert not box.runs.startswith("wrong")

    # Now it is left alone.
    for _ in range(60):
        last = box.turn()
    assert last in ("rest", "drift")
    assert box.journal.step == "idle"
    assert box.disk[0] == box.disk[1], "half-applied"
    # What nobody has put there from afar is still there, or kept.
    for word in edits:
        assert word in (box.disk[1], *box.kept) or _was_replaced_by_hand(word, edits)
    if not box.local.drifted:
        assert box.runs == box.disk[1]
        assert not box.runs.startswith(("cut", "wrong"))
    failed = box.journal.failed
    if wanted is not None and not box.local.drifted:
        if box.journal.running is None or box.journal.running.key[:2] != wanted.key[:2]:
            assert failed is not None
            assert failed.target.key == wanted.key
        else:
            assert box.runs == wanted.sha256


def _was_replaced_by_hand(word: str, edits: set[str]) -> bool:
    """A later edit stands over it."""
    return any(int(e.rpartition("-")[2]) > int(word.rpartition("-")[2]) for e in edits)


@settings(max_examples=200)
@given(st.sampled_from(["bad1", "cut1"]), st.integers(0, 14), st.integers(0, 14))
def test_harm_is_undone_however_often_it_is_killed(word: str, first: int, second: int) -> None:
    box, target = Box(), want(1, word)
    for fuel in (first, second, 10**9):
        box.fuel, box.target = fuel, target
        try:
            for _ in range(40):
                box.turn()
        except Killed:
            box.start()
    assert box.disk == ["good0", "good0"]
    assert box.runs == "good0"
    assert box.journal.failed is not None
    assert box.journal.failed.outcome == "rolled_back"
    assert box.act() == "rest"


def test_a_version_in_which_it_dies_each_time_is_given_up() -> None:
    box = Box()
    box.target = want(1, "good1")
    box.turn()
    for _ in range(core.MAX_TRIES + 1):
        box.fuel = 1
        with pytest.raises(Killed):
            box.act()
        box.start()
    for _ in range(5):
        box.turn()
    assert box.runs == "good0"
    assert box.journal.failed is not None
    assert "interrupted" in box.journal.failed.error


def test_what_failed_is_tried_again_only_when_it_is_said_anew() -> None:
    failed = want(3, "bad1", rollout="rol_1")
    journal = Journal(failed=Failure(failed, "rolled_back", "x"))
    local = Local("good0", False)
    assert decide(journal, failed, local, None, 0).what == "rest"
    assert decide(journal, replace(failed, watch_s=99.0), local, None, 0).what == "rest"
    assert decide(journal, replace(failed, rollout="rol_2"), local, None, 0).what == "check"
    assert decide(journal, want(4, "bad1"), local, None, 0).what == "check"


def test_a_leave_to_overwrite_holds_once() -> None:
    target = want(3, "good1", overwrite=True)
    drifted = Local("local", True)
    journal = Journal(running=want(3, "good1"))
    assert decide(journal, replace(target, overwrite=False), drifted, None, 0).what == "drift"
    assert decide(journal, target, drifted, None, 0).what == "check"
    journal = journal.begin(Attempt(target)).watch().settle()
    assert decide(journal, target, drifted, None, 0).what == "drift"


def test_who_told_the_centre_of_a_change_has_no_drift() -> None:
    journal = Journal(running=want(3, "good1"))
    assert decide(journal, want(4, "local"), Local("local", True), None, 0).what == "check"
    assert decide(journal, want(4, "other"), Local("local", True), None, 0).what == "drift"


def test_the_centre_is_told_the_state_of_the_version_it_wants() -> None:
    good, bad = want(1, "good1"), want(2, "bad1")
    calm, drifted = Local("", False), Local("", True)
    journal = Journal(running=good, failed=Failure(bad, "refused", "no", ({"key": "site"},)))
    assert core.tell(journal, bad, calm).state == "refused"
    assert core.tell(journal, None, calm).target == bad
    assert core.tell(journal, good, calm) == core.Said("applied", good)
    assert core.tell(journal, bad, drifted) == core.Said("drift", bad)
    assert core.tell(journal.begin(Attempt(bad)), bad, calm).state == "applying"
    assert core.tell(journal.begin(Attempt(bad)).watch(), bad, calm).state == "watching"
    assert core.is_open(journal, bad, calm)
    assert not core.is_open(journal, good, calm)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: {},
        lambda d: [],
        lambda d: {**d, "step": "dancing"},
        lambda d: {**d, "attempt": None},
        lambda d: {**d, "running": {"version": 1}},
    ],
)
def test_a_damaged_journal_is_told(damage: object) -> None:
    good = Journal().begin(Attempt(want(1, "x"), ("status",))).as_json()
    with pytest.raises(Damaged):
        from_json(damage(json.loads(json.dumps(good))))  # type: ignore[operator]


def test_keys_of_a_later_version_are_no_damage() -> None:
    data = json.loads(json.dumps(Journal().begin(Attempt(want(1, "x"))).as_json()))
    data["attempt"]["target"]["colour"] = "red"
    assert from_json(data).attempt == Attempt(want(1, "x"))


# -- the watch ----------------------------------------------------------------------------

ITEMS = ("plc:press-1", "plc:press-2", "output:north")
LOOKS = st.lists(
    st.one_of(st.none(), st.dictionaries(st.sampled_from(ITEMS), st.booleans())), max_size=40
)


@given(st.sets(st.sampled_from(ITEMS)), LOOKS)
def test_only_what_worked_before_and_does_not_now_is_a_reason(
    worked: set[str], looks: list[dict[str, bool] | None]
) -> None:
    """Against the plainest reading: one look a second, all of them remembered."""
    watch = Watch((*worked, STATUS), 20.0, 0.0)
    history: dict[str, list[bool]] = {name: [] for name in (*worked, STATUS)}
    for second, look in enumerate(looks, 1):
        seen = None if look is None else Health(look, dict.fromkeys(look, "?"), {}, {}, 0)
        watch.see(seen, float(second))
        history[STATUS].append(look is not None)
        for name in worked:
            # What the new configuration has no more works as well as it can.
            history[name].append(look is not None and look.get(name, True))
        lost = watch.lost(float(second))
        over = second >= 20
        for name, works in history.items():
            gone_since = max((n for n, w in enumerate(works, 1) if w), default=0)
            # Seen first not to work one second after it was last seen to; at the start, at once.
            began = gone_since + 1 if gone_since else 0
            reason = not works[-1] and (over or second - began >= 10)
            words = "the site" if name == STATUS else name.partition(":")[2]
            assert (words in lost) == reason, (name, second, lost)


def test_the_centre_has_all_of_the_watch_to_answer() -> None:
    watch = Watch((CENTRE,), 20.0, 100.0)
    assert watch.lost(119.9) == ""
    assert "centre" in watch.lost(120.0)
    watch.reached(119.0)
    assert watch.lost(120.0) == ""
    assert Watch((), 20.0, 0.0).lost(99.0) == ""


def test_health_is_what_status_shows() -> None:
    plc = {"id": "a", "status": "online", "fresh": True, "failure": None}
    failure = {"message": "no answer"}
    document = {
        "plcs": [
            plc,
            {**plc, "id": "b", "status": "degraded"},
            {**plc, "id": "c", "fresh": False},
            {**plc, "id": "d", "status": "no_reader", "failure": failure},
        ],
        "outputs": [
            {"name": "o", "status": "ok", "pending": 3, "error": None},
            {"name": "p", "status": "down", "pending": None, "error": failure},
        ],
    }
    seen = health.read(document)
    assert seen.works == {
        "plc:a": True, "plc:b": True, "plc:c": False, "plc:d": False,
        "output:o": True, "output:p": False,
    }  # fmt: skip
    assert seen.as_report() == {
        "plcs": {"a": "online", "b": "degraded", "c": "online", "d": "offline"},
        "outputs": {"o": "up", "p": "down"},
        "pending": 3,
    }
    assert seen.said["plc:d"] == seen.said["output:p"] == "no answer"
