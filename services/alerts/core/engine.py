"""The engine: messages and ticks in, transitions out.

Order and time. A PLC's messages drive its own alarms, by their ``ts``; ``tick`` drives everything.
So it makes no difference how the messages of different PLCs are interleaved between two ticks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.alerts.core.context import Box
from services.alerts.core.leaf import FOREVER, Silence
from services.alerts.core.plant import Plant
from services.alerts.core.plc import Plc, Stream
from services.alerts.core.rule import HEARTBEAT
from services.alerts.core.transition import Transition

Roster = Iterable[tuple[str, str, str, Iterable[tuple[str, str, Iterable[str]]]]]
"""(locatario, site, PLC, its (group, machine, fields)): what ought to speak."""

# The year 9999: what is told later can still be said as a date.
TS_END_MS = 253_370_764_800_000
# Any database can hold them.
NUMBER_END = 2**53
# Of heartbeats; a longer one is a mistake.
INTERVAL_MAX_S = 86_400
# No value of a field is one (CONTRACT §4).
NESTED = (list, dict)


class BadMessage(ValueError):
    """A message that cannot be understood: says what is wrong with it."""


class Engine(Plant):
    """All rules over all series. Deterministic: its state and its input decide everything."""

    # -- input ----------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Transition]:
        """Time has passed."""
        context = self._context
        context.now_ms, context.mode = now_ms, "tick"
        for watch in list(context.waiting):
            plc = watch.plc
            late_at = plc.late_at if plc is not None else None
            if late_at is not None and now_ms - late_at < self.hold_ms:
                continue  # its backlog is coming in: time passes there by its messages
            if watch.tick(now_ms) and plc is not None:
                self.dirty.add(plc.key)
        return self._context.said()

    def resume(self, now_ms: int) -> None:
        """Nobody has listened until now: silence counts from here."""
        self._context.now_ms = now_ms
        for watch in self._context.waiting:
            for leaf in watch.leaves:
                if isinstance(leaf, Silence):
                    leaf.start(now_ms)

    def expect(self, roster: Roster) -> None:
        """Names what ought to speak, so that it is missed although it never did."""
        for locatario, site, name, streams in roster:
            plc = self._plc(locatario, name, site)
            for group, machine, fields in streams:
                stream = self._stream(plc, group, machine, False)
                for field in fields:
                    self._watched(plc, stream, field)

    def message(
        self, topic: str, message: Mapping[str, Any] | None, now_ms: int
    ) -> list[Transition]:
        """One message of CONTRACT §4 as it came in at ``now_ms``; None for an empty one.

        Topics that are not ours change nothing. Raises BadMessage.
        """
        self._context.now_ms = now_ms
        match topic.split("/"):
            case ["plc", locatario, plc]:
                self._data(locatario, plc, message or {})
            case ["plc", locatario, plc, "heartbeat"]:
                self._heartbeat(locatario, plc, message)
            case ["plc", locatario, plc, "gap"]:
                self._gap(locatario, plc, message or {})
            case ["edge", locatario, site, "status"]:
                self._status(locatario, site, message or {})
        return self._context.said()

    # -- data -----------------------------------------------------------------------------------

    def _data(self, locatario: str, name: str, message: Mapping[str, Any]) -> None:
        ts = _time(message)
        values = message.get("values") or {}
        if not isinstance(values, dict):
            raise BadMessage("`values` holds no fields with their values")
        group, machine = _text(message, "group"), _text(message, "machine")
        plc = self._plc(locatario, name, message.get("site"))
        epoch, seq = message.get("epoch"), message.get("seq")
        before = plc.seen.newest
        at = (epoch, seq) if type(epoch) is int and type(seq) is int else None
        if at is not None and not all(0 <= n < NUMBER_END for n in at):
            raise BadMessage(f"`epoch` and `seq` are {at}")
        if at is not None and not plc.seen.add(*at):
            return
        self.dirty.add(plc.key)
        context = self._context
        context.mode = "live"
        if message.get("replay") is True:
            context.mode = "replay"
        elif ts < context.now_ms - context.late_after_ms:
            context.mode = "late"
        history = context.is_history
        past = (at is not None and at < before) or (history and ts < plc.ts)
        if not past:
            plc.ts = ts
            plc.late_at = context.now_ms if history else None
            if at is not None and before[0] not in (0, at[0]):
                self._break(plc, ts)
        stream = self._stream(plc, group, machine, past)
        if message.get("quality", "good") == "good":
            self._good(plc, stream, ts, values, message.get("bad"))
        elif stream.leaves:
            for leaf in stream.leaves:
                leaf.watch.lose(leaf, ts)
        if plc.box is not None and not history:
            self._box_heard(plc.box, ts)
        if plc.past and at is not None and not past and plc.seen.whole():
            plc.forget_past()

    def _good(self, plc: Plc, stream: Stream, ts: int, values: Mapping[str, Any], bad: Any) -> None:
        known = stream.fields
        for name, value in values.items():
            leaves = known.get(name)
            if leaves is None:
                leaves = self._watched(plc, stream, name)
            if leaves and isinstance(value, NESTED):
                for leaf in leaves:
                    leaf.watch.lose(leaf, ts)
                continue
            for leaf in leaves:
                leaf.take(ts, value, values)
        if bad and isinstance(bad, NESTED):
            for name in known if "*" in bad else bad:
                if isinstance(name, str) and name not in values:
                    for leaf in known.get(name, ()):
                        leaf.watch.lose(leaf, ts)
        if values and not stream.past:
            for leaf in stream.signs:
                leaf.take(ts, None, values)
            for leaf in plc.alive:
                leaf.take(ts, None, values)

    def _break(self, plc: Plc, ts: int) -> None:
        for stream in plc.streams.values():
            if stream.group != HEARTBEAT:
                for leaf in stream.leaves:
                    leaf.watch.lose(leaf, ts, gap=True)

    def _gap(self, locatario: str, name: str, message: Mapping[str, Any]) -> None:
        plc = self.plcs.get((locatario, name))
        if plc is None:
            return
        epoch, last = message.get("epoch"), message.get("last_seq")
        newest = plc.seen.newest
        if type(epoch) is int and newest[0]:
            end = (epoch, last if type(last) is int else FOREVER)
            if end <= newest:  # of what lies behind the newest message nothing waits any more
                return
        self.dirty.add(plc.key)
        self._break(plc, plc.ts)

    # -- state of PLCs and boxes ----------------------------------------------------------------

    def _heartbeat(self, locatario: str, name: str, message: Mapping[str, Any] | None) -> None:
        if not message:
            self._remove(locatario, name)
            return
        ts = _time(message)
        context = self._context
        plc = self._plc(locatario, name, message.get("site"))
        # It is retained and comes again with every subscription; an old one says nothing of now.
        if ts == plc.beat_ms or ts < context.now_ms - context.late_after_ms:
            return
        self.dirty.add(plc.key)
        plc.beat_ms = ts
        context.mode = "live"
        stream = self._stream(plc, HEARTBEAT, "", False)
        failure = message.get("failure")
        values = {k: v for k, v in message.items() if isinstance(v, int | float | str)}
        code = failure.get("code") if isinstance(failure, dict) else None
        values["failure"] = code if isinstance(code, str) else ""
        interval_s = message.get("interval_s")
        if isinstance(interval_s, int | float) and 0 <= interval_s <= INTERVAL_MAX_S:
            stream.set_hold(round(interval_s * 3_000) + 5_000)
        for field, value in values.items():
            for leaf in self._watched(plc, stream, field):
                leaf.take(ts, value, values)
        for leaf in plc.beats:
            leaf.take(ts, None, values)
        if message.get("status") in ("online", "degraded"):
            for leaf in plc.alive:
                leaf.take(ts, None, values)
        if plc.box is not None:
            self._box_heard(plc.box, ts)

    def _remove(self, locatario: str, name: str) -> None:
        plc = self.plcs.pop((locatario, name), None)
        if plc is not None:
            self.dirty.add(plc.key)
            for watch in plc.watches():
                watch.close(self._context.now_ms, "removed")
                plc.drop(watch)

    def _status(self, locatario: str, site: str, message: Mapping[str, Any]) -> None:
        status = message.get("status")
        if status not in ("online", "offline"):
            raise BadMessage("`status` is neither online nor offline")
        ts = message.get("ts")
        ts = self._context.now_ms if ts is None else _time(message)  # a will has none
        self._context.mode = "live"
        box = self._box(locatario, site)
        box.is_down = status == "offline"
        for of, leaf in box.signs:
            if of == "link":
                leaf.take(ts, status, message)
        if status == "online":
            self._box_heard(box, ts)

    def _box_heard(self, box: Box, ts: int) -> None:
        if ts > box.heard_ms:
            box.heard_ms = ts
            for of, leaf in box.signs:
                if of == "box":
                    leaf.take(ts, None, {})


def _time(message: Mapping[str, Any]) -> int:
    ts = message.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        raise BadMessage("`ts` is missing or no number of milliseconds")
    if not 0 <= ts < TS_END_MS:
        raise BadMessage(f"`ts` is {ts}, no time in milliseconds that can be")
    return int(ts)


def _text(message: Mapping[str, Any], name: str) -> str:
    text = message.get(name) or ""
    if not isinstance(text, str):
        raise BadMessage(f"`{name}` is no text")
    return text
