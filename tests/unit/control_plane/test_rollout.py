"""Roll-outs against a model that anybody can check: what the boxes are decides how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.control_plane.fleet import rollout
from services.control_plane.fleet.rollout import Box, Heard, Rollout, Targets, step

OLD, NEW = 3, 7
TIMEOUT_MS = 1_000
GOOD, REFUSES, FALLS_BACK, DRIFTED, MUTE = "good", "refuses", "falls back", "drifted", "mute"
KINDS = (GOOD, REFUSES, FALLS_BACK, DRIFTED, MUTE)


@dataclass
class Plant:
    """One box as the protocol has it: it polls, it applies, it reports; of its own kind each."""

    kind: str
    running: int | None = OLD
    dealt_with: int | None = OLD
    rollout: str | None = None
    said: Heard | None = None
    todo: list[str] = field(default_factory=list)
    """What it will report next, one after the other."""

    def poll(self, target: int | None, rollout_id: str) -> None:
        if self.kind == MUTE or self.todo or target in (None, self.dealt_with):
            return
        self.dealt_with, self.rollout = target, rollout_id
        if self.kind == DRIFTED:
            self.todo = ["drift"]
        elif target == NEW and self.kind == REFUSES:
            self.todo = ["refused"]
        elif target == NEW and self.kind == FALLS_BACK:
            self.todo = ["applying", "watching", "rolled_back"]
        else:
            self.todo = ["applying", "watching", "applied"]

    def report(self, now_ms: int) -> None:
        """What it has to say, or the same again."""
        if self.kind == MUTE:
            return
        if self.todo:
            state, version = self.todo.pop(0), self.dealt_with
            if state == "watching":
                before, self.running = self.running, version
                self.before = before
            if state == "rolled_back":
                self.running = self.before
            self.said = Heard(now_ms, now_ms, state, version, self.running, self.rollout)
        elif self.said is not None:
            s = self.said
            self.said = Heard(now_ms, s.changed_ms, s.state, s.version, s.running, s.rollout)
        else:
            state = "drift" if self.kind == DRIFTED and self.dealt_with != OLD else "applied"
            self.said = Heard(now_ms, now_ms, state, OLD, self.running, None)


class World:
    """The centre's side and the boxes."""

    def __init__(self, stages: list[list[str]], known: bool = True) -> None:
        """``stages``: the kind of each box of each stage."""
        self.now_ms, self.up_ms = 100_000, 0
        self.plants: dict[str, Plant] = {}
        self.targets: Targets = {}
        boxes = []
        for n, kinds in enumerate(stages):
            for kind in kinds:
                site = f"s{len(self.plants)}"
                self.plants[site] = Plant(kind)
                self.targets[site] = OLD if known else None
                boxes.append(Box(site, n, NEW, OLD if known else None))
        self.rollout = Rollout("rol_1", TIMEOUT_MS, tuple(boxes))
        self.sent: set[str] = set()

    def heard(self) -> dict[str, Heard]:
        return {s: p.said for s, p in self.plants.items() if p.said is not None}

    def turn(self) -> None:
        """The centre's step, whose answer must be the same if its write was lost."""
        before, heard = self.rollout, self.heard()
        after, targets = step(before, heard, self.now_ms, self.up_ms)
        assert (after, targets) == step(before, heard, self.now_ms, self.up_ms)
        assert step(after, heard, self.now_ms, self.up_ms) == (after, {}), "asked twice"
        if before.state in (rollout.DONE, rollout.ROLLED_BACK):
            assert (after, targets) == (before, {})
        self.sent |= {s for s, version in targets.items() if version == NEW}
        under_way = {b.stage for b in after.boxes if b.state == rollout.SENT}
        assert len(under_way) <= 1, "two stages at once"
        if after.stage > before.stage >= 0:
            assert all(b.state == rollout.APPLIED for b in after.of_stage(before.stage))
        self.rollout, self.targets = after, self.targets | targets

    def settle(self) -> None:
        """Everybody does what is left to do, and time passes."""
        for _ in range(40):
            self.turn()
            for plant_id, plant in self.plants.items():
                plant.poll(self.targets[plant_id], self.rollout.id)
                plant.report(self.now_ms)
            self.now_ms += TIMEOUT_MS // 8
        self.turn()


stages_of = st.lists(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), min_size=1, max_size=4
)
mostly_good = st.lists(
    st.lists(st.sampled_from([GOOD] * 6 + list(KINDS)), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.sampled_from(["poll", "report"]), st.integers(0, 15)),
        st.tuples(st.just("time"), st.integers(1, 200)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(stages_of | mostly_good, events)
def test_it_ends_as_its_boxes_are(stages: list[list[str]], order: list[tuple[str, int]]) -> None:
    """The reference: with good boxes only, all have the new one. Else the first stage with another
    is the last that is sent, and whoever can be heard is back on the old one.
    """
    world = World(stages)
    names = list(world.plants)
    for what, number in order:
        site = names[number % len(names)]
        if what == "turn":
            world.turn()
        elif what == "poll":
            world.plants[site].poll(world.targets[site], world.rollout.id)
        elif what == "report":
            world.plants[site].report(world.now_ms)
        elif what == "time":
            world.now_ms += number
        else:  # killed: what was decided is in the database, and its clock begins anew
            world.up_ms = world.now_ms
    world.settle()

    # Time passed without a box being asked: a good one is late too, as a mute one is.
    late = {b.site for b in world.rollout.boxes if b.why == rollout.TIMEOUT}
    bad = [any(kind != GOOD for kind in stage) for stage in stages]
    by_stage = [[b.site for b in world.rollout.of_stage(n)] for n in range(len(stages))]
    first_bad = bad.index(True) if True in bad else len(stages)
    if late and world.rollout.state == rollout.ROLLED_BACK:
        first_bad = min(first_bad, *(b.stage for b in world.rollout.boxes if b.site in late))
    if first_bad == len(stages):
        assert world.rollout.state == rollout.DONE
        assert {p.running for p in world.plants.values()} == {NEW}
        assert set(world.targets.values()) == {NEW}
        return
    assert world.rollout.state == rollout.ROLLED_BACK
    assert world.sent == {s for stage in by_stage[: first_bad + 1] for s in stage}
    assert set(world.targets.values()) == {OLD}
    for site, plant in world.plants.items():
        assert plant.running == OLD, site
    for box in world.rollout.boxes:
        kind = world.plants[box.site].kind
        expected = rollout.WAITING if box.stage > first_bad else rollout.RETURNED
        if box.stage <= first_bad and kind in (MUTE, DRIFTED):
            assert box.state in (rollout.MISSING, rollout.RETURNED)
        else:
            assert box.state == expected, box


@given(stages_of)
def test_a_bad_version_stops_at_its_first_stage(stages: list[list[str]]) -> None:
    world = World([[REFUSES, *stages[0]], *stages[1:]])
    world.settle()
    assert world.rollout.state == rollout.ROLLED_BACK
    assert world.rollout.stage == 0
    assert world.sent == {b.site for b in world.rollout.of_stage(0)}
    assert all(p.running == OLD for p in world.plants.values())
    assert "s0: refused" in world.rollout.reason


def test_while_the_centre_is_away_nobody_is_late() -> None:
    world = World([[GOOD]])
    world.turn()
    world.now_ms += 100 * TIMEOUT_MS
    world.up_ms = world.now_ms  # it was away all that time
    world.turn()
    assert world.rollout.state == rollout.RUNNING
    world.now_ms += TIMEOUT_MS
    world.turn()
    assert world.rollout.state == rollout.RUNNING
    world.now_ms += 1
    world.turn()
    assert (world.rollout.state, world.rollout.reason) == (rollout.ROLLING_BACK, "s0: timeout")


def test_an_old_failure_of_the_same_version_is_none_of_this_rollout() -> None:
    world = World([[GOOD]])
    world.plants["s0"].said = Heard(1, 1, "rolled_back", NEW, OLD, "rol_0")
    world.turn()
    world.turn()
    assert world.rollout.state == rollout.RUNNING
    world.plants["s0"].said = Heard(2, 2, "rolled_back", NEW, OLD, "rol_1")
    world.turn()
    assert world.rollout.state == rollout.ROLLING_BACK


def test_a_box_is_back_only_by_what_it_says_afterwards() -> None:
    """Before it was asked back it may have taken the new version already, unheard."""
    world = World([[GOOD, REFUSES]])
    good, bad = world.plants.values()
    good.report(world.now_ms)
    world.turn()
    good.poll(NEW, "rol_1")
    bad.poll(NEW, "rol_1")
    bad.report(world.now_ms)
    world.turn()
    assert world.rollout.state == rollout.ROLLING_BACK
    world.turn()
    states = {b.site: b.state for b in world.rollout.boxes}
    assert states["s0"] == rollout.RETURNING
    world.settle()
    assert world.rollout.state == rollout.ROLLED_BACK
    assert good.running == OLD


def test_a_box_without_an_earlier_version_keeps_what_it_has() -> None:
    world = World([[GOOD], [GOOD, REFUSES]], known=False)
    for plant in world.plants.values():
        plant.running = plant.dealt_with = None
    world.settle()
    assert world.rollout.state == rollout.ROLLED_BACK
    states = {b.site: b.state for b in world.rollout.boxes}
    assert states["s0"] == rollout.KEPT
    assert states["s2"] == rollout.RETURNED, "it went back by itself"
    assert world.targets["s0"] == NEW
    assert world.targets["s2"] is None


def test_a_halted_one_begins_nothing_and_still_watches() -> None:
    world = World([[GOOD], [GOOD]])
    world.turn()
    world.rollout = replace(world.rollout, state=rollout.HALTED)
    world.settle()
    assert (world.rollout.state, world.rollout.stage) == (rollout.HALTED, 0)
    assert world.rollout.boxes[0].state == rollout.APPLIED
    bad = World([[REFUSES], [GOOD]])
    bad.turn()
    bad.rollout = replace(bad.rollout, state=rollout.HALTED)
    bad.settle()
    assert bad.rollout.state == rollout.ROLLED_BACK


def test_by_hand_all_go_back() -> None:
    world = World([[GOOD], [GOOD]])
    world.settle()
    assert world.rollout.state == rollout.DONE
    world.rollout, targets = rollout.send_back(world.rollout, "asked for", world.now_ms)
    world.targets |= targets
    world.settle()
    assert world.rollout.state == rollout.ROLLED_BACK
    assert {p.running for p in world.plants.values()} == {OLD}


@given(st.integers(1, 300), st.sets(st.integers(1, 99), max_size=6))
def test_shares_take_every_box_once_in_order(count: int, percent: set[int]) -> None:
    sites = [f"s{n}" for n in range(count)]
    shares = [*sorted(percent), 100]
    stages = rollout.plan(sites, shares)
    assert [s for stage in stages for s in stage] == sites
    assert all(stages)
    reached = 0
    for stage in stages:
        reached += len(stage)
        assert any(reached == -(-count * p // 100) for p in shares)


@pytest.mark.parametrize(
    ("count", "percent", "sizes"),
    [(10, [10, 50, 100], [1, 4, 5]), (1, [10, 50, 100], [1]), (3, [1, 34, 100], [1, 1, 1])],
)
def test_shares_by_example(count: int, percent: list[int], sizes: list[int]) -> None:
    assert [len(s) for s in rollout.plan([str(n) for n in range(count)], percent)] == sizes


def test_a_box_in_drift_ends_it_at_once() -> None:
    world = World([[DRIFTED, GOOD]])
    world.turn()
    world.plants["s0"].poll(NEW, "rol_1")
    world.plants["s0"].report(world.now_ms)
    world.turn()
    assert (world.rollout.state, world.rollout.reason) == (rollout.ROLLING_BACK, "s0: drift")


def test_a_box_that_still_has_the_new_one_is_not_back() -> None:
    world = World([[GOOD, REFUSES]])
    world.turn()
    for plant in world.plants.values():
        plant.poll(NEW, "rol_1")
    for _ in range(3):
        for plant in world.plants.values():
            plant.report(world.now_ms)
    world.turn()
    world.now_ms += 1
    world.plants["s0"].report(world.now_ms)
    assert world.plants["s0"].running == NEW
    world.turn()
    states = {b.site: b.state for b in world.rollout.boxes}
    assert (world.rollout.state, states["s0"]) == (rollout.ROLLING_BACK, rollout.RETURNING)
