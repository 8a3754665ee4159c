"""The engine as a consumer of the store: state, position, history and notifications of one moment
are committed together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from bus.frames import Heartbeat
from services.alerts.control import Control
from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.plant import FIELDS_PER_STREAM, STREAMS_PER_PLC
from services.alerts.core.rule import Rule
from services.alerts.core.transition import FIRING, Transition
from services.alerts.core.watch import Watch
from services.alerts.memory import Change, Memory
from services.alerts.notify import Notifier
from services.alerts.shown import rang, shown, urgency
from services.alerts.telling import Telling
from services.consumer.durable import Durable
from services.consumer.row import Row
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable
from services.runtime.process import Process

TICK_S = 1.0
PRUNE_S = 60.0
# What a message that nobody foresaw may raise, whatever becomes of it: it is said, and passed over.
MALFORMED = (
    ValueError, TypeError, OverflowError, KeyError, AttributeError, RecursionError,
)  # fmt: skip
SEVERITIES = ("informacao", "aviso", "critica")


class Alarms:
    """One box's alarms; at the centre one tenant's (services/alerts/centre.py)."""

    window = 2_000
    # A commit is an fdatasync: some ms, so that it is not made for each row.
    commit_s = 0.02
    target = "alert rules"

    def __init__(self, process: Process) -> None:
        config = process.config
        self._process = process
        self._rules = [Rule.from_spec(spec) for spec in config["rules"]]
        self._receivers = [r["name"] for r in config["receivers"]]
        self._known = {(tenant, plc) for tenant, _, plc, _ in config["roster"]}
        """PLCs of the configuration: of another one nothing would ever end an alarm."""
        file = process.state_dir / "alerts" / config.get("file", "alerts.db")
        self._memory = Memory(file, self._damaged)
        try:
            self._telling = Telling(config, self._rules, self._memory)
            self._notifier = Notifier(process, self._memory, config["receivers"])
        except Exception:
            self._memory.close()
            raise
        self._engine = Engine(self._rules)
        self._said: list[Transition] = []
        """Not told yet."""
        self._counts: list[Transition] = []
        """Not committed yet."""
        self._holds_rows = False
        """The engine has taken rows that are not committed: its state goes with their position."""
        self._tick_due = False
        self._listened = False
        self._full: set[tuple[str, str]] = set()
        """PLCs with too many names, of which that was said."""

    def _damaged(self, path: Any, why: str) -> None:
        text = f"{path.stem}.db was damaged and lies in {path}: alarms begin anew"
        self._process.event("error", "alerts_damaged", text, error=why)

    def open(self) -> None:
        """Lets time pass."""
        self._process.every(TICK_S, self._tick)
        self._process.every(PRUNE_S, self._prune)
        self._process.every(PRUNE_S, self._say_full)
        self._notifier.open()

    def close(self) -> None:
        """Nobody is told any more."""
        self._notifier.close()

    # -- as a consumer --------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Takes up what the last commit kept."""
        config = self._process.config
        holds_ms = {(plc, group): hold_ms for plc, group, hold_ms in config["holds_ms"]}
        self._engine = Engine(
            self._rules,
            hold_ms=config["hold_ms"],
            holds_ms=holds_ms,
            late_after_ms=config["late_after_ms"],
        )
        state = self._memory.state()
        self._said = self._engine.restore(state) if state else []
        # What was closed in there must not be closed again by the next start.
        self._engine.dirty |= {(t.place.locatario, t.place.plc) for t in self._said if t.place.plc}
        self._engine.expect(config["roster"])
        now = now_ms()
        for tenant, plc in self._engine.plcs.keys() - self._known:
            self._said += self._engine.message(f"plc/{tenant}/{plc}/heartbeat", None, now)
        if not self._listened:
            self._listened = True
            self._engine.resume(now)
        self._holds_rows = self._tick_due = False
        self._counts = []
        self._telling.begin(state["number"] if state else 0, self._engine.ringing())
        self._count_firing()
        return self._memory.position()

    def take(self, rows: Sequence[Row]) -> None:
        """Each moves its PLC's alarms."""
        now = now_ms()
        self._holds_rows = True
        for row in rows:
            if (row.locatario, row.plc) in self._known:
                self._give(row.topic, row.body, now)

    def _give(self, topic: str, body: bytes, now: int) -> None:
        try:
            message = orjson.loads(body)
            if not isinstance(message, dict):
                raise BadMessage("is no JSON object")
        except ValueError as e:
            self._pass_over(topic, e)
            return
        self._hear(topic, message, now)

    def _hear(self, topic: str, message: dict[str, Any] | None, now: int) -> None:
        """A message that cannot be understood must not end what watches all the others."""
        try:
            self._said += self._engine.message(topic, message, now)
        except MALFORMED as e:
            self._pass_over(topic, e)

    def _pass_over(self, topic: str, error: Exception) -> None:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        text = f"a message of {topic} cannot be understood: {why}"
        self._process.event("warning", "alerts_bad_message", text)

    def beat(self, beat: Heartbeat) -> None:
        """What a PLC's reader says of it; kept by the next commit."""
        fields = asdict(beat)
        if (beat.locatario, beat.plc) not in self._known:
            return
        topic = f"plc/{fields.pop('locatario')}/{fields.pop('plc')}/heartbeat"
        message = None
        if not fields.pop("removed"):
            site = self._site_of(beat)
            message = {**fields, "ts": fields.pop("ts_ms"), "site": site}
        self._hear(topic, message, now_ms())

    def commit(self, position: bytes) -> None:
        """With what time has brought meanwhile."""
        if self._tick_due:
            self._pass_time()
        self._save(position)
        self._holds_rows = self._tick_due = False

    # -- time, and keeping ----------------------------------------------------------------------

    def _tick(self) -> None:
        if self._holds_rows:
            self._tick_due = True
            return
        self._pass_time()
        if self._said or self._engine.dirty or self._telling.pending(now_ms()):
            try:
                self._save(None)
            except Unavailable as e:  # the same again in a second
                self._process.log.warning("not kept", error=e.message)

    def _pass_time(self) -> None:
        now = now_ms()
        self._say_what_lives(now)
        self._said += self._engine.tick(now)
        self._tell(now)
        self._telling.pass_time(now)

    def _site_of(self, _beat: Heartbeat) -> str:
        """The box that a heartbeat comes from."""
        return str(self._process.config["site"])

    def _say_what_lives(self, now: int) -> None:
        """This box lives: only its PLCs may be silent here."""
        for tenant in {tenant for tenant, _ in self._known}:
            topic = f"edge/{tenant}/{self._process.config['site']}/status"
            self._said += self._engine.message(topic, {"status": "online", "ts": now}, now)

    def _tell(self, now: int) -> None:
        said, self._said = self._said, []
        self._telling.take(said, self._engine.find, now)
        self._counts += said

    def _save(self, position: bytes | None) -> None:
        engine, now = self._engine, now_ms()
        self._tell(now)
        change = Change(
            head=engine.dump_head(),
            boxes=engine.dump_boxes(),
            plcs={key: engine.dump_plc(key) for key in engine.dirty},
            position=position,
        )
        self._telling.fill(change, now)
        self._memory.save(change)
        engine.dirty.clear()
        self._telling.committed()
        said, self._counts = self._counts, []
        for t in said:
            counter = self._process.stats.counter
            counter("plc_edge_alert_transitions_total", to=t.to_state).inc()
        if said:
            self._count_firing()
        for why, count in self._telling.kept_back().items():
            gauge = self._process.stats.gauge("plc_edge_alert_notifications_held", reason=why)
            gauge.set(count)
        if change.queue or change.board:
            self._notifier.wake()

    def _count_firing(self) -> None:
        firing = [w.rule.severity for w in self._engine.ringing() if w.state == FIRING]
        for severity in SEVERITIES:
            gauge = self._process.stats.gauge("plc_edge_alerts_firing", severity=severity)
            gauge.set(firing.count(severity))

    def _say_full(self) -> None:
        """Once of each PLC."""
        for key in self._engine.full.keys() - self._full:
            self._full.add(key)
            text = (
                f"{'/'.join(key)} has sent more than {STREAMS_PER_PLC:,} groups and machines, or"
                f" more than {FIELDS_PER_STREAM:,} fields in one of them: no rule sees the others"
            )
            self._process.event("warning", "alerts_too_many_names", text)

    def _prune(self) -> None:
        for name, count in self._memory.prune(now_ms(), self._receivers).items():
            text = f"{name} was away for too long: {count} notifications were dropped"
            self._process.event("error", "notifications_dropped", text)

    # -- what people do -------------------------------------------------------------------------

    def ringing(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Every alarm that is not ok, what needs somebody first; at most ``limit``."""
        now = now_ms()
        return [shown(w, now) for w in sorted(self._engine.ringing(), key=urgency)[:limit]]

    def count(self) -> int:
        """How many are not ok."""
        return len(self._engine.ringing())

    def history(
        self, count: int, rule: str = "", plc: str = "", before: int | None = None
    ) -> list[Any]:
        """The last transitions, newest first; of those before a number (the end of their `id`)."""
        return self._memory.history(count, rule, plc, before)

    def rang(self, begin_ms: int, end_ms: int, limit: int) -> dict[str, Any]:
        """The alarms that rang at some time of a range, as `services/alerts/shown.py` says."""
        found = self._memory.touching(begin_ms, end_ms, limit + 1)
        ringing = [w for w in self._engine.ringing() if w.state == FIRING]
        alarms = rang(found[:limit], ringing, begin_ms, end_ms)
        return {"alarms": alarms[:limit], "complete": len(found) <= limit >= len(alarms)}

    def acknowledge(self, rule: str, only: Mapping[str, str], who: str) -> list[dict[str, Any]]:
        """Those that ring under a rule are taken care of; ``only``: those of a place
        (``Place``'s fields, as far as they are named).
        """
        now = now_ms()
        return self._touch(rule, only, lambda watch: watch.acknowledge(who, now))

    def silence(
        self, rule: str, only: Mapping[str, str], for_ms: int, why: str
    ) -> list[dict[str, Any]]:
        """Nobody is told of them for so long."""
        now = now_ms()

        def silence(watch: Watch) -> bool:
            watch.silence(now + for_ms, why)
            return True

        return self._touch(rule, only, silence)

    def _touch(
        self, rule: str, only: Mapping[str, str], do: Callable[[Watch], bool]
    ) -> list[dict[str, Any]]:
        if rule not in self._engine.rules:
            raise KeyError(f"there is no rule {rule!r}")
        touched = []
        for watch in list(self._engine.watches()):
            if watch.past or watch.rule.name != rule:
                continue
            if any(getattr(watch.place, name) != wanted for name, wanted in only.items()):
                continue
            if do(watch):
                touched.append(watch)
                self._telling.touch(watch)
                if watch.plc is not None:
                    self._engine.dirty.add(watch.plc.key)
        if touched and not self._holds_rows:
            self._save(None)
        return [shown(w, now_ms()) for w in touched]


def setup(process: Process) -> Callable[[], None]:
    """Joins it with the store, of a box."""
    alarms = Alarms(process)
    stop = Durable(process, alarms).open()
    alarms.open()
    Control(alarms).serve(process)
    process.ready()

    def close() -> None:
        stop()
        alarms.close()

    return close
