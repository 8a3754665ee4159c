"""Shifts and OEE of what is kept (the rules: services/oee/core). Questions, as plain data:

``shifts``  {begin_ms?, end_ms?}: a week back and ahead, if nothing is said
``oee``     {shift} (``2026-11-30/manha``, ``now``, ``last``) or {begin_ms, end_ms}; {machine?}, and
            {by: "shift"} for each shift by itself
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from services.historian.bounds import Bound
from services.historian.known import Known
from services.historian.reading import History, Raw, Series
from services.historian.shapes import DAY_MS, GOOD
from services.oee.core.calendar import Calendar, Shift
from services.oee.core.evaluate import evaluate
from services.oee.core.figures import Figures, total
from services.oee.core.machine import Machine, Signals
from services.oee.core.signal import NEVER, Sample, Signal
from services.runtime.clock import now_ms

# Rows of one stream in one shift: 12 h at 50 Hz.
MAX_ROWS = 2_200_000
MAX_SHIFTS = 200
MAX_DAMAGE = 10
# So long after its end nothing more is expected of a shift; what comes all the same is seen when
# the answer is forgotten.
SETTLED_MS = 10 * 60_000
REMEMBERED, REMEMBERED_MS = 2_000, 600_000


@dataclass(frozen=True, slots=True)
class Configured:
    """A machine and where its fields are."""

    machine: Machine
    running: Series
    counters: dict[str, Series]
    reasons: tuple[Series, ...]

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Configured:
        """As services/runtime/oee_rules.py writes it."""
        return cls(
            Machine.from_spec(spec),
            Series(*spec["running"]["series"]),
            {name: Series(*c["series"]) for name, c in spec["counters"].items()},
            tuple(Series(*s) for s in spec["reasons"]),
        )

    def series(self) -> list[Series]:
        """All of them, each once."""
        return list(dict.fromkeys((self.running, *self.counters.values(), *self.reasons)))


class Oee:
    """Answers for one box. ``clock``: Unix ms."""

    def __init__(self, spec: dict[str, Any], clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self.timezone: str = spec["shifts"]["timezone"]
        self.zone = ZoneInfo(self.timezone)
        self.calendar = Calendar.from_spec(spec["shifts"], self.zone)
        self.machines = {m["name"]: Configured.from_spec(m) for m in spec["machines"]}
        self._remembered: OrderedDict[tuple[str, str], tuple[int, Figures]] = OrderedDict()

    # -- questions ------------------------------------------------------------------------------

    def shifts(self, _history: History, args: dict[str, Any]) -> dict[str, Any]:
        """Those that touch a time."""
        now = self._clock()
        begin = int(args.get("begin_ms", now - 7 * DAY_MS))
        end = int(args.get("end_ms", now + 7 * DAY_MS))
        found = [s.as_json(now) for s in self._between(begin, end)]
        machines = list(self.machines)
        return {
            "timezone": self.timezone, "now_ms": now, "machines": machines, "shifts": found
        }  # fmt: skip

    def oee(self, history: History, args: dict[str, Any]) -> dict[str, Any]:
        """Of a shift, or of any time."""
        now = self._clock()
        names = self._names(args.get("machine") or "")
        if (wanted := args.get("shift")) is not None:
            shift = self.find(str(wanted), now)
            begin, end, shifts = shift.begin_ms, shift.end_ms, [shift]
        else:
            begin, end = int(args["begin_ms"]), int(args["end_ms"])
            if begin >= end:
                raise ValueError("the time ends before it begins")
            shifts = self._between(begin, end)
        found: dict[str, Any] = {
            "timezone": self.timezone,
            "now_ms": now,
            "begin_ms": begin,
            "end_ms": end,
            "until_ms": max(begin, min(end, now)),
            "shifts": [s.as_json(now) for s in shifts],
        }
        if args.get("by") == "shift":
            rows = [(s, self.of(history, names, s.begin_ms, s.end_ms, [s])) for s in shifts]
            found["rows"] = [
                {"shift": s.id, "machine": name, **brief(f)}
                for s, figures in rows
                for name, f in figures.items()
            ]
            return found
        figures = self.of(history, names, begin, end, shifts)
        whole = total(figures.values())
        found["machines"] = [
            {
                "name": name,
                "words": self.machines[name].machine.words or {},
                "planned": sorted(self.machines[name].machine.planned),
                **f.as_json(),
            }
            for name, f in figures.items()
        ]
        found["total"] = None if whole is None else brief(whole)
        found["damage"] = history.damage[:MAX_DAMAGE]
        return found

    # -- what they are answered with ------------------------------------------------------------

    def find(self, name: str, now: int) -> Shift:
        """The shift of an id; ``now``: the one that is worked; ``last``: that ended last. Raises
        ValueError.
        """
        if name in ("now", "last"):
            near = self.calendar.between(now - 15 * DAY_MS, now + 1)
            if name == "now":
                near = [s for s in near if now < s.end_ms]
            else:
                near = [s for s in near if s.end_ms <= now]
            if near:
                return near[-1]
            what = "is worked now" if name == "now" else "has ended in the last two weeks"
            raise ValueError(f"no shift {what}: see `plc-edge shifts`")
        day, _, plan = name.partition("/")
        try:
            found = [s for s in self.calendar.of_day(date.fromisoformat(day)) if s.name == plan]
        except ValueError:
            text = f"{name!r} is no shift: write `2026-11-30/manha`, `now` or `last`"
            raise ValueError(text) from None
        if not found:
            raise ValueError(f"there is no shift {name!r}: see `plc-edge shifts`")
        return found[0]

    def of(
        self, history: History, names: Sequence[str], begin: int, end: int, shifts: Sequence[Shift]
    ) -> dict[str, Figures]:
        """Figures by machine, of the time that has passed."""
        now = self._clock()
        until = max(begin, min(end, now))
        known = Known.load(history.folder)
        out = {}
        for name in names:
            key = name, f"{begin}-{end}"
            at, figures = self._remembered.get(key, (0, None))
            if figures is None or now - at > REMEMBERED_MS:
                figures = self._compute(history, known, name, begin, until, shifts)
                if end + SETTLED_MS < now:
                    self._remembered[key] = now, figures
                    if len(self._remembered) > REMEMBERED:
                        self._remembered.popitem(last=False)
            out[name] = figures
        return out

    def _compute(
        self, history: History, known: Known, name: str, begin: int, end: int,
        shifts: Sequence[Shift],
    ) -> Figures:  # fmt: skip
        configured = self.machines[name]
        machine = configured.machine
        wanted = configured.series()
        around = machine.min_stop_ms + max(known.hold_ms(s.stream) for s in wanted)
        signals = {}
        for stream in dict.fromkeys(s.stream for s in wanted):
            fields = [s.field for s in wanted if s.stream == stream]
            hold_ms = known.hold_ms(stream)
            for raw in history.taken(stream, fields, begin - around, end + around, MAX_ROWS):
                signals[raw.series] = _signal(raw, hold_ms)
        found = Signals(
            signals[configured.running],
            {counter: signals[s] for counter, s in configured.counters.items()},
            tuple(signals[s] for s in configured.reasons),
        )
        return evaluate(machine, shifts, found, begin, end)

    def _between(self, begin: int, end: int) -> list[Shift]:
        if not 0 <= end - begin <= 400 * DAY_MS:
            raise ValueError("a time is at most 400 days long")
        found = self.calendar.between(begin, end)
        if len(found) > MAX_SHIFTS:
            raise ValueError(f"these are {len(found)} shifts, {MAX_SHIFTS} at most: ask for fewer")
        return found

    def _names(self, wanted: str) -> list[str]:
        if not self.machines:
            raise ValueError("the configuration has no `oee:`")
        if wanted and wanted not in self.machines:
            raise ValueError(f"no machine {wanted!r}; known: {', '.join(self.machines)}")
        return [wanted] if wanted else list(self.machines)


def brief(figures: Figures) -> dict[str, Any]:
    """Without the list of stops."""
    found = figures.as_json()
    found["stop_count"] = len(found.pop("stops"))
    return found


def answer(
    oee: Oee | None, history: History, verb: str, args: dict[str, Any], bound: Bound | None = None
) -> dict[str, Any]:
    """The answer to a question of ``VERBS``. Raises ValueError."""
    if oee is None:
        raise ValueError("the configuration has no `shifts:`")
    history.start(bound or Bound())
    try:
        return VERBS[verb](oee, history, args)
    except KeyError as e:
        raise ValueError(f"{verb}: {e.args[0]!r} is missing") from None
    except TypeError as e:
        raise ValueError(f"{verb}: {e}") from None


VERBS: dict[str, Callable[[Oee, History, dict[str, Any]], dict[str, Any]]] = {
    "shifts": Oee.shifts,
    "oee": Oee.oee,
}


def _signal(raw: Raw, hold_ms: int) -> Signal:
    if raw.cut:
        raise ValueError(f"more than {MAX_ROWS:,} messages of {raw.series.plc}: ask for less")
    return Signal(thinned(raw, hold_ms), NEVER)


def thinned(raw: Raw, hold_ms: int) -> list[Sample]:
    """What ``Signal`` takes, without the rows that say what the one before and the one after say:
    of a week at 10 Hz a few hundred are left. Where a value ended to hold, or messages are
    missing, stands one that is not known; so what is left holds until the next.
    """
    rows = len(raw.ts_ms)
    if not rows:
        return []
    ts, good, values = raw.ts_ms, raw.quality == GOOD, raw.values
    step = np.diff(ts)
    joined = np.asarray(raw.joined[1:], np.bool_)
    alike = np.asarray(values[1:] == values[:-1], np.bool_)
    same = good[1:] & good[:-1] & joined & (step >= 0) & (step <= hold_ms) & alike
    same |= ~good[1:] & ~good[:-1] & (step >= 0)
    kept = np.ones(rows, np.bool_)
    kept[1:-1] = ~(same[:-1] & same[1:])
    out: list[Sample] = []
    at = np.flatnonzero(kept)
    for i, t, value, known in zip(
        at.tolist(), ts[at].tolist(), values[at].tolist(), good[at].tolist(), strict=True
    ):
        out.append((t, value if known else None))
        if not known:
            continue
        if i + 1 == rows:
            out.append((t + hold_ms, None))
        elif step[i] > 1 and not joined[i]:
            out.append((t + 1, None))
        elif step[i] > hold_ms:
            out.append((t + hold_ms, None))
    return out
