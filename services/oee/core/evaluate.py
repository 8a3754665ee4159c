"""Where a machine's time went in a window, and what it made (the rules: docs/oee.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.oee.core.calendar import Shift
from services.oee.core.figures import Figures, Made, Stop
from services.oee.core.machine import Machine, Signals
from services.oee.core.signal import Count, Run, counts, joined, runs
from services.oee.core.stretches import Stretch, Stretches, common, holds, length_ms, union, without


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A whole stop, wherever the window lies."""

    begin_ms: int
    end_ms: int
    after_run: bool
    before_run: bool


def evaluate(
    machine: Machine, shifts: Sequence[Shift], signals: Signals, begin_ms: int, end_ms: int
) -> Figures:
    """``shifts``: all that lie in [begin, end) in part. Signals reach beyond the window by as much
    as a value holds and as the least stop is long: a stop is as long as it is, whatever window
    it is looked at through.
    """
    window = [(begin_ms, end_ms)] if begin_ms < end_ms else []
    on_shift = common(union((s.begin_ms, s.end_ms) for s in shifts), window)
    breaks = common(union(b for s in shifts for b in s.breaks), on_shift)
    work = without(on_shift, breaks)

    states = runs(signals.running, machine.runs)
    known = union((r.begin_ms, r.end_ms) for r in states)
    stops: list[_Stopped] = []
    short: list[_Stopped] = []
    for stop in _stopped(states):
        seen = stop.after_run and stop.before_run
        lasted_ms = stop.end_ms - stop.begin_ms
        (short if seen and lasted_ms < machine.min_stop_ms else stops).append(stop)
    briefly = [(s.begin_ms, s.end_ms) for s in short]
    running = common(union([*((r.begin_ms, r.end_ms) for r in states if r.value), *briefly]), work)

    figures = Figures(begin_ms, end_ms, {}, ideal_ms=machine.ideal_ms)
    reasons = _reasons(machine, signals, end_ms)
    planned_ms = 0
    for stop in stops:
        if (found := _stop(stop, reasons, work, begin_ms, end_ms)) is None:
            continue
        figures.stops.append(found)
        for code, ms in found.reasons:
            figures.reasons_ms[code] = figures.reasons_ms.get(code, 0) + ms
            planned_ms += ms if code in machine.planned else 0
    for stretch in briefly:
        lasted_ms = length_ms(common([stretch], work))
        figures.short_ms += lasted_ms
        figures.short_stops += lasted_ms > 0
    stopped_ms = sum(s.stopped_ms for s in figures.stops)
    running_ms = length_ms(running)
    figures.parts_ms = {
        "running": running_ms,
        "stopped_unplanned": stopped_ms - planned_ms,
        "stopped_planned": planned_ms,
        "unknown": length_ms(without(work, known)),
        "breaks": length_ms(breaks),
        "outside": length_ms(without(window, on_shift)),
    }
    _count(figures, machine, signals, common(work, known), work, running)
    return figures


def _stopped(states: Sequence[Run]) -> list[_Stopped]:
    """Every stop. Runs that touch differ, so what touches a stop is running."""
    return [
        _Stopped(
            r.begin_ms,
            r.end_ms,
            i > 0 and states[i - 1].end_ms == r.begin_ms,
            i + 1 < len(states) and states[i + 1].begin_ms == r.end_ms,
        )
        for i, r in enumerate(states)
        if not r.value
    ]


def _reasons(machine: Machine, signals: Signals, end_ms: int) -> list[Run]:
    """Which reason was given when, before the window's end: what is said later changes no shift
    that has ended.
    """
    said = [runs(signal, machine.code) for signal in signals.reasons]
    out: list[Run] = []
    for begin, end, codes in joined(said):
        code = next((c for c in codes if c), "")
        if code and begin < end_ms:
            out.append(Run(begin, min(end, end_ms), code))
    return out


def _stop(
    stop: _Stopped, reasons: Sequence[Run], work: Stretches, begin_ms: int, end_ms: int
) -> Stop | None:
    """A stop's part in the working time, and why; None if it has none."""
    pieces = common([(stop.begin_ms, stop.end_ms)], work)
    if not pieces:
        return None
    by_code: list[tuple[str, int]] = []
    for code, stretch in _whys(stop, reasons):
        ms = length_ms(common([stretch], pieces))
        if ms and by_code and by_code[-1][0] == code:
            by_code[-1] = (code, by_code[-1][1] + ms)
        elif ms:
            by_code.append((code, ms))
    began = "seen" if stop.after_run else "unknown"
    ended = "seen" if stop.before_run else "unknown"
    return Stop(
        pieces[0][0],
        pieces[-1][1],
        length_ms(pieces),
        "before" if stop.begin_ms < begin_ms else began,
        "after" if stop.end_ms > end_ms else ended,
        tuple(by_code),
    )


def _whys(stop: _Stopped, reasons: Sequence[Run]) -> list[tuple[str, Stretch]]:
    """Which reason holds for which part of a stop: the one given then. What has none takes the one
    before it in the same stop, and a beginning without one the first that follows.
    """
    inside = [r for r in reasons if r.begin_ms < stop.end_ms and stop.begin_ms < r.end_ms]
    if not inside:
        return [("", (stop.begin_ms, stop.end_ms))]
    begins = [stop.begin_ms, *(r.begin_ms for r in inside[1:]), stop.end_ms]
    return [(r.value, (begins[i], begins[i + 1])) for i, r in enumerate(inside)]


def _count(
    figures: Figures,
    machine: Machine,
    signals: Signals,
    known: Stretches,
    work: Stretches,
    running: Stretches,
) -> None:
    """Pieces, where they belong. ``known``: working time in which the machine's state is known."""
    counters = machine.counters or {}
    if not counters:
        return
    for name in counters:
        held = runs(signals.counters[name])
        known = common(known, union((r.begin_ms, r.end_ms) for r in held))
    figures.counted_ms = length_ms(common(running, known))
    made: dict[str, float] = dict.fromkeys(counters, 0)
    unseen, at_rest = dict(made), dict(made)
    for name, kind in counters.items():
        for count in counts(signals.counters[name], kind, machine.ideal_ms):
            if figures.begin_ms <= count.ts_ms < figures.end_ms:
                _where(count, known, work, made, unseen, at_rest)[name] += count.amount
    figures.made = _made(made) if known else Made()
    figures.unseen, figures.at_rest = _made(unseen), _made(at_rest)


def _where(
    count: Count,
    known: Stretches,
    work: Stretches,
    made: dict[str, float],
    unseen: dict[str, float],
    at_rest: dict[str, float],
) -> dict[str, float]:
    """Where a count belongs."""
    if count.sure and holds(known, count.ts_ms):
        return made
    return unseen if holds(work, count.ts_ms) or not count.sure else at_rest


def _made(counted: dict[str, float]) -> Made:
    """The third of three follows from two."""
    good, bad, all_ = (counted.get(name) for name in ("good", "bad", "total"))
    if all_ is None and good is not None and bad is not None:
        all_ = good + bad
    elif good is None and bad is not None and all_ is not None:
        good = all_ - bad
    elif bad is None and good is not None and all_ is not None:
        bad = all_ - good
    return Made(good, bad, all_)
