"""One record (a machine of a group): its messages in, one sum for each step out. Pure.

A value holds until the next message, ``hold_ms`` at most, and not beyond a hole in the PLC's
sequence. What is not held is not known, and not zero: ``known_ms`` says how much of the step is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from services.publisher.reduce.field import Field, flat

Sum = dict[str, Any]
"""A reduced message without its numbers."""
RANKS = {"good": 2, "uncertain": 1}
QUALITIES = ("bad", "uncertain", "good")
# A message of a step's last moment may be on its way so long.
LATE_MS = 5_000
# What a message says of itself alone; the rest is of its record.
_OWN = frozenset(("ts", "epoch", "seq", "quality", "latency_ms", "values", "bad", "replay"))


class Stream:
    """Of one (PLC, group, machine). Times are Unix ms."""

    def __init__(
        self,
        step_ms: int,
        hold_ms: int,
        counters: Mapping[str, int] | None = None,
        wide: Collection[str] = (),
    ) -> None:
        """``counters``: field → how many values its type has, 0 where it does not go round.
        ``wide``: fields of 64-bit integers, which may come as text.
        """
        self.step_ms = step_ms
        self.hold_ms = hold_ms
        self._counters = counters or {}
        self._wide = wide
        self._head: Mapping[str, Any] = {}
        self._fields: dict[str, Field] = {}
        self._held: list[Field] = []
        """Of the last message, as long as it holds."""
        self._waiting: list[tuple[str, Any]] = []
        """The same of one that is more doubtful than its step: it counts from the next one on."""
        self._held_rank = 0
        self._since = 0
        """Up to where time has been counted."""
        self._holds_to = 0
        self._newest = -1
        """The start of the latest step that was told of."""
        self._begin(0)

    def _begin(self, start: int) -> None:
        self._start = start
        self._first_ts: int | None = None
        self._rank = 0
        """Of the values that are counted: the best that there were."""
        self._known_ms = 0
        self._count = 0
        self._raw: list[list[int]] = []
        self._bad: dict[str, str] = {}
        for field in self._fields.values():
            field.reset()

    # -- what happens ----------------------------------------------------------------------------

    def take(self, message: Mapping[str, Any]) -> list[Sum]:
        """One message; the sums of the steps that are over."""
        ts: int = message["ts"]
        if ts < self._start:  # a clock was set back
            done = self._sum()
            self._begin(self._floor(ts))
            self._since = ts
        else:
            done = self._pass_to(ts)
            self._since = max(self._since, ts)
        self._count += 1
        self._first_ts = ts if self._first_ts is None else self._first_ts
        self._number(message["epoch"], message["seq"])
        if self._count == 1:
            self._head = {k: v for k, v in message.items() if k not in _OWN}
        rank = RANKS.get(message["quality"], 0)
        bad = message.get("bad") or {}
        self._bad |= bad
        self._held, self._waiting = [], []
        if rank:
            self._held_rank, self._holds_to = rank, ts + self.hold_ms
        if rank and rank < self._rank:
            self._waiting = list(flat(message["values"]))
        elif rank:
            if self._rank and rank > self._rank:  # what was doubtful does not count any more
                for field in self._fields.values():
                    field.forget()
                self._known_ms = 0
            self._rank = rank
            for name, value in flat(message["values"]):
                self._held.append(self._take(name, value))
        return done

    def _take(self, name: str, value: Any) -> Field:
        field = self._fields.get(name)
        if field is not None:
            try:
                field.take(value)
            except (TypeError, ValueError):
                pass  # another type since the configuration was changed
            else:
                return field
        field = self._fields[name] = self._new(name, value)
        field.take(value)
        return field

    def _new(self, name: str, value: Any) -> Field:
        if isinstance(value, bool):
            return Field("bool")
        if name in self._counters:
            return Field("counter", self._counters[name])
        is_wide = name in self._wide or name.rpartition(".")[0] in self._wide
        return Field("text" if isinstance(value, str) and not is_wide else "number")

    def _number(self, epoch: int, seq: int) -> None:
        last = self._raw[-1] if self._raw else None
        if last and last[0] == epoch and seq > last[2]:
            last[2] = seq
        else:
            self._raw.append([epoch, seq, seq])

    def lose(self, ts: int) -> None:
        """From then on nothing is known until the next message: messages are missing."""
        self._holds_to = min(self._holds_to, ts)

    def end(self) -> list[Sum]:
        """Nothing more is known of it: the sums of what was."""
        done = self._pass_to(self._holds_to) if self._holds else []
        self._held, self._waiting = [], []
        done += self._sum()
        self._begin(self._floor(self._since))
        return done

    @property
    def _holds(self) -> bool:
        return bool(self._held or self._waiting)

    # -- time ------------------------------------------------------------------------------------

    def is_over(self, now: int) -> bool:
        """Whether all that it knows belongs to steps that have passed."""
        known_to = max(self._since, self._holds_to) if self._holds else self._since
        return self._floor(known_to) + self.step_ms + LATE_MS <= now

    def _floor(self, ts: int) -> int:
        return ts - ts % self.step_ms

    def _pass_to(self, ts: int) -> list[Sum]:
        done: list[Sum] = []
        while True:
            end = self._start + self.step_ms
            self._hold_to(min(ts, end))
            if ts < end:
                return done
            done += self._sum()
            goes_on = self._holds and self._holds_to > end
            self._begin(end if goes_on else self._floor(ts))
            if goes_on and self._waiting:
                self._held = [self._take(name, value) for name, value in self._waiting]
                self._waiting, self._since = [], end

    def _hold_to(self, ts: int) -> None:
        ms = min(ts, self._holds_to) - self._since
        if self._held and ms > 0:
            for field in self._held:
                field.hold(ms)
            self._known_ms += ms
            self._rank = max(self._rank, self._held_rank)
            self._since += ms

    def _sum(self) -> list[Sum]:
        if not self._count and not self._known_ms:
            return []
        # Part of a step that was told of already has a time of its own: none takes its place.
        told = self._start <= self._newest and self._first_ts is not None
        values: dict[str, Any] = {}
        for name, field in self._fields.items():
            if field.is_told:
                values |= field.summed(name)
        fields = self._fields
        bad = {k: v for k, v in self._bad.items() if k not in fields or not fields[k].is_told}
        if "*" in bad and values:
            del bad["*"]
        self._newest = max(self._newest, self._start)
        return [
            {
                **self._head,
                "ts": self._first_ts if told else self._start,
                "step_ms": self.step_ms,
                "known_ms": self._known_ms,
                "count": self._count,
                "raw": self._raw,
                "quality": QUALITIES[self._rank],
                "values": values,
                **({"bad": bad} if bad else {}),
            }
        ]

    # -- keeping ---------------------------------------------------------------------------------

    def dump(self) -> list[Any]:
        """Plain data."""
        held = set(map(id, self._held))
        fields = [[name, id(f) in held, f.dump()] for name, f in self._fields.items()]
        return [
            self.step_ms, self._head, self._held_rank, self._since, self._holds_to, self._newest,
            self._start, self._first_ts, self._rank, self._known_ms, self._count, self._raw,
            self._bad, fields, self._waiting,
        ]  # fmt: skip

    def restore(self, data: list[Any]) -> list[Sum]:
        """What ``dump`` gave; a sum where the step has another length now."""
        step_ms = self.step_ms
        (
            self.step_ms, self._head, self._held_rank, self._since, self._holds_to, self._newest,
            self._start, self._first_ts, self._rank, self._known_ms, self._count, self._raw,
            self._bad, fields, waiting,
        ) = data  # fmt: skip
        self._waiting = [(name, value) for name, value in waiting]
        for name, is_held, state in fields:
            field = self._fields[name] = Field.restore(state)
            if is_held:
                self._held.append(field)
        if self.step_ms == step_ms:
            return []
        done = self._sum()
        self.step_ms = step_ms
        self._begin(self._floor(self._since))
        return done
