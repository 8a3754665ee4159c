"""Questions to the history, as plain data: what the CLI asks of the files, or anybody of the
running historian over the wire ``history``.

``series``   {plc?, field?, group?, machine?, locatario?}
``raw``      {series: [[locatario, plc, group, machine, field], …], begin_ms, end_ms, limit?}
``rolled``   {series, begin_ms, end_ms, step_ms? | points?}
``unknown``  {stream: [locatario, plc, group, machine], begin_ms, end_ms}
``gaps``     {plc, begin_ms, end_ms, locatario?}
``messages`` {plc, begin_ms, end_ms, locatario}: the first ones as delivered, and where to go on

Bounded (services/historian/bounds.py). What is refused raises ValueError, which says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from services.historian.bounds import MAX_POINTS, MAX_SERIES, Bound, TooMuch
from services.historian.known import Known
from services.historian.reading import History, Series, Stream
from services.historian.shapes import DAY_MS, HOUR_MS, MINUTE_MS
from services.runtime.clock import now_ms

# What a step is rounded up to, so that buckets begin where people expect it.
STEPS_MS = (
    *(MINUTE_MS * n for n in (1, 2, 5, 10, 15, 30)),
    *(HOUR_MS * n for n in (1, 2, 3, 6, 12)),
    *(DAY_MS * n for n in (1, 2, 7)),
)
FINEST_MS = 1_000
# Of ``messages``: read so long at once, shorter where too many come; one of 200 values has 3 KB.
PIECE_MS = 10_000
MAX_STEP_MS = 400 * DAY_MS
# The end of the year 9999.
LAST_MS = 253_402_300_799_999
ENOUGH_MESSAGES, MAX_MESSAGES, MAX_PIECES = 250, 1_000, 200


def answer(history: History, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """The answer. Raises ValueError: unknown verb, wrong arguments, or too much asked for."""
    if verb not in VERBS:
        raise ValueError(f"unknown question {verb!r}; known: {', '.join(VERBS)}")
    history.start(Bound())
    try:
        return VERBS[verb](history, args)
    except KeyError as e:
        raise ValueError(f"{verb}: {e.args[0]!r} is missing") from None
    except (TypeError, OverflowError) as e:
        raise ValueError(f"{verb}: {e}") from None


def _series(history: History, args: dict[str, Any]) -> dict[str, Any]:
    found = history.series(**{k: str(v) for k, v in args.items()})
    return {"series": [{**asdict(s), "series": _name(s.series)} for s in found]}


def _raw(history: History, args: dict[str, Any]) -> dict[str, Any]:
    series, begin_ms, end_ms = _asked(args)
    limit = min(int(args.get("limit", MAX_POINTS)), MAX_POINTS)
    return {
        "series": [
            {
                "series": _name(r.series),
                "ts_ms": r.ts_ms.tolist(),
                "values": [
                    v if code != 2 else None
                    for v, code in zip(r.values.tolist(), r.quality.tolist(), strict=True)
                ],
                "quality": r.quality.tolist(),
                "reasons": {str(i): why for i, why in enumerate(r.reasons) if why},
                "joined": r.joined.tolist(),
                "cut": r.cut,
            }
            for r in history.raw(series, begin_ms, end_ms, limit)
        ]
    }


def _rolled(history: History, args: dict[str, Any]) -> dict[str, Any]:
    series, begin_ms, end_ms = _asked(args)
    step_ms = (
        int(args["step_ms"])
        if args.get("step_ms")
        else step_for(end_ms - begin_ms, int(args.get("points", 1_000)))
    )
    if not args.get("step_ms"):
        begin_ms -= begin_ms % step_ms  # the same steps wherever the range begins
    if step_ms < FINEST_MS:
        raise TooMuch(f"a step is {FINEST_MS} ms at least, not {step_ms}: ask for raw values")
    if step_ms > MAX_STEP_MS:
        raise ValueError(f"a step is {MAX_STEP_MS} ms at most, not {step_ms}")
    points = -(-(end_ms - begin_ms) // step_ms)
    if points > MAX_POINTS:
        raise TooMuch(
            f"{points:,} points are more than {MAX_POINTS:,}: ask for a step of"
            f" {-(-(end_ms - begin_ms) // MAX_POINTS) / 1_000:g} s at least, or a shorter time"
        )
    return {
        "step_ms": step_ms,
        "series": [
            {
                "series": _name(r.series),
                "kind": r.kind,
                "begin_ms": r.begin_ms.tolist(),
                "known_ms": r.known_ms.tolist(),
                "count": r.count.tolist(),
                "edges": r.edges.tolist(),
                **{
                    n: _plain(getattr(r, n))
                    for n in ("mean", "low", "high", "last", "weighted", "increase")
                },
            }
            for r in history.rolled(series, begin_ms, end_ms, step_ms)
        ],
    }


def _unknown(history: History, args: dict[str, Any]) -> dict[str, Any]:
    stream, ends = Stream(*args["stream"]), _range(args)
    found = history.known(stream, *ends)
    # A PLC that spoke just now may well hold its values: it sends when they change.
    held_since_ms = now_ms() - Known.load(history.folder).hold_ms(stream)
    if found and found[-1].why == "silent" and found[-1].begin_ms > held_since_ms:
        found.pop()
    return {"unknown": [asdict(u) for u in found]}


def _gaps(history: History, args: dict[str, Any]) -> dict[str, Any]:
    found = history.gaps(str(args["plc"]), *_range(args), str(args.get("locatario", "")))
    return {"gaps": [asdict(g) for g in found[:MAX_POINTS]]}


def _messages(history: History, args: dict[str, Any]) -> dict[str, Any]:
    """The first some hundreds, all up to ``next_ms``: who goes on there gets each once. Where a
    silence takes too long to look through: none, yet.
    """
    plc, locatario = str(args["plc"]), str(args["locatario"])
    begin_ms, end_ms = _range(args)
    at_ms, length_ms = begin_ms, PIECE_MS
    found: list[dict[str, Any]] = []
    for _ in range(MAX_PIECES):
        if at_ms >= end_ms or len(found) >= ENOUGH_MESSAGES:
            break
        until_ms = min(at_ms + length_ms, end_ms)
        try:
            said = history.messages(plc, at_ms, until_ms, locatario)
            page = [message for _, message in islice(said, MAX_MESSAGES + 1)]
        except TooMuch:
            if at_ms > begin_ms:
                break
            if length_ms <= 1:
                raise
            length_ms = max(1, length_ms // 8)
            history.start(Bound())
            continue
        if len(page) > MAX_MESSAGES and length_ms > 1:
            length_ms = max(1, length_ms // 8)
            continue
        found += page
        at_ms, length_ms = until_ms, length_ms if page else min(length_ms * 4, HOUR_MS)
    return {
        "plc": plc, "locatario": locatario, "begin_ms": begin_ms, "next_ms": at_ms,
        "messages": found,
    }  # fmt: skip


VERBS: dict[str, Callable[[History, dict[str, Any]], dict[str, Any]]] = {
    "series": _series, "raw": _raw, "rolled": _rolled, "unknown": _unknown, "gaps": _gaps,
    "messages": _messages,
}  # fmt: skip


def step_for(range_ms: int, points: int) -> int:
    """The step that gives at most so many points: whole minutes where that is coarse enough."""
    points = max(1, min(points, MAX_POINTS))
    least = -(-range_ms // points)
    if least <= MINUTE_MS // 2:
        return max(FINEST_MS, least)
    fitting = (s for s in STEPS_MS if s >= least)
    return next(fitting, -(-least // DAY_MS) * DAY_MS)


def _asked(args: dict[str, Any]) -> tuple[list[Series], int, int]:
    series = [Series(*map(str, s)) for s in args["series"]]
    if not series:
        raise ValueError("name a series at least")
    if len(series) > MAX_SERIES:
        raise TooMuch(f"{len(series)} series are more than {MAX_SERIES}: ask for fewer at once")
    begin_ms, end_ms = _range(args)
    if begin_ms >= end_ms:
        raise ValueError(f"the time ends ({end_ms}) before it begins ({begin_ms})")
    return series, begin_ms, min(end_ms, max(begin_ms + 1, now_ms() + DAY_MS))


def _range(args: dict[str, Any]) -> tuple[int, int]:
    """(begin, end) as asked for: every hour between may be looked at."""
    for name in ("begin_ms", "end_ms"):
        given = args[name]
        if not isinstance(given, int | float) or not 0 <= given <= LAST_MS:
            raise ValueError(f"{name} {str(given)[:40]!r}: write Unix ms, from 0 to {LAST_MS}")
    return int(args["begin_ms"]), int(args["end_ms"])


def _name(series: Series) -> list[str]:
    return [*series.stream, series.field]


def _plain(values: Any) -> list[Any]:
    """JSON knows no NaN."""
    if values.dtype == object:
        return [None if isinstance(v, float) and v != v else v for v in values.tolist()]
    return [v if np.isfinite(v) else None for v in values.tolist()]
