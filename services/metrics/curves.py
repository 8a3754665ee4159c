"""The historian's answers as documents of ``/api/history``; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]
Raw = Json
Spans = list[tuple[int, int, str]]
"""(begin, end, why), Unix ms."""


def with_raw(
    document: Json, series: Iterable[Json], raw: Iterable[Json], why: Mapping[str, list[Json]]
) -> Json:
    """Every value; ``why``: what is not known, by stream."""
    found = []
    for info, r in zip(series, raw, strict=True):
        reasons = [r["reasons"].get(str(i), "") for i in range(len(r["ts_ms"]))]
        said = {
            "ts": r["ts_ms"],
            "values": r["values"],
            "quality": r["quality"],
            "reasons": reasons,
            "cut": r["cut"],
        }
        found.append({**info, **said, "unknown": _spans(why.get(info["stream"], []))})
    return {**document, "step_ms": 0, "series": found}


def with_rolled(
    document: Json,
    series: Iterable[Json],
    step_ms: int,
    rolled: Iterable[Json],
    why: Mapping[str, list[Json]],
) -> Json:
    """Roll-ups, a bucket per step. Of a number ``mean``, ``min`` and ``max`` (the mean is of the
    time where it is known, else of the values), of a BOOL ``duty`` and ``edges``, of a counter
    ``last`` and ``increase``, of a text ``last``.
    """
    found = []
    for info, r in zip(series, rolled, strict=True):
        one = {**info, "ts": r["begin_ms"], "known_ms": r["known_ms"]}
        if info["kind"] == "number":
            mean = [
                w if w is not None else m for w, m in zip(r["weighted"], r["mean"], strict=True)
            ]
            one |= {"mean": mean, "min": r["low"], "max": r["high"]}
        elif info["kind"] == "bool":
            one |= {"duty": r["weighted"], "edges": r["edges"]}
        else:
            one |= {"last": r["last"], "increase": r["increase"]}
        spans = why.get(info["stream"])
        one["unknown"] = _spans(spans) if spans is not None else _holes(r, step_ms, document["now"])
        found.append(one)
    return {**document, "step_ms": step_ms, "series": found}


def _spans(unknown: Iterable[Json]) -> Spans:
    return [(u["begin_ms"], u["end_ms"], u["why"]) for u in unknown]


def _holes(rolled: Json, step_ms: int, now_ms: int) -> Spans:
    """Of buckets that nothing is known of; why, nobody asked."""
    found: Spans = []
    for begin, known in zip(rolled["begin_ms"], rolled["known_ms"], strict=True):
        if known or begin >= now_ms:
            continue
        end = min(begin + step_ms, now_ms)
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end, "")
        else:
            found.append((begin, end, ""))
    return found


def rows(document: Json) -> Json:
    """A document as flat rows, for tables and for Grafana: ``rows`` of {time, name, value, min,
    max, known} (``known`` a share, 0 to 1) and ``unknown`` of {name, begin, end, why}.
    """
    step_ms, found, unknown = document["step_ms"], [], []
    for s in document["series"]:
        about = {"name": s["name"], "key": s["key"]}
        none = [None] * len(s["ts"])
        low, high = s.get("min", none), s.get("max", none)
        if step_ms:
            values = s.get("mean") or s.get("duty") or s.get("last") or none
            known = [round(k / step_ms, 4) for k in s["known_ms"]]
        else:
            values, known = s["values"], [1.0 if q == 0 else 0.0 for q in s["quality"]]
        for row in zip(s["ts"], values, low, high, known, strict=True):
            found.append({**about, **dict(zip(_COLUMNS, row, strict=True))})
        unknown += [{**about, "begin": b, "end": e, "why": w} for b, e, w in s["unknown"]]
    return {"v": 1, "step_ms": step_ms, "rows": found, "unknown": unknown}


_COLUMNS = ("time", "value", "min", "max", "known")
