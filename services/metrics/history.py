"""The panel's history: what the historian (services/historian/asking.py) and the alert engine
answer, put together for the page, for Grafana and for programs (docs/historico-consultas.md).

Nothing is computed here: the historian bounds what a question may cost, and says what to ask
instead. Like all of the panel it stands behind its login, and it only reads.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.metrics.asking import Peer, Refused, json_answer
from services.metrics.curves import Raw, rows, with_raw, with_rolled
from services.metrics.event_log import EventLog
from services.runtime import moments, units
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable

# The historian gives up after 2 s; what waits for its turn is served within so long.
ANSWER_S = 3.0
MAX_SERIES = 20
MAX_POINTS = 5_000
MAX_TEXT = 400
# Up to so long every value is shown, where those are not too many.
RAW_MS = 10 * 60_000
# Up to so long it is also asked why something is not known: that reads every message.
WHY_MS = 24 * 3_600_000
# The list of series changes seldom, and the page asks for it at each letter.
FRESH_S = 5.0

Json = dict[str, Any]
Key = tuple[str, str, str, str]
"""(plc, group, machine or "", field)"""


class History:
    """The routes."""

    def __init__(self, runtime: Path, events: EventLog) -> None:
        self._ask = Peer(runtime, "history", "the historian", ANSWER_S)
        self._alarms = Peer(runtime, "alarms", "the alert engine")
        self._events = events
        self._known: tuple[float, list[Json]] = (0.0, [])
        self._listing = asyncio.Lock()

    def routes(self) -> list[Route]:
        """All of them read."""
        return [
            Route("/api/history", answered(self._curves)),
            Route("/api/history/rows", answered(self._rows)),
            Route("/api/history/series", answered(self._series)),
            Route("/api/history/events", answered(self._happened)),
        ]

    async def _series(self, query: QueryParams) -> Json:
        words = query.get("find", "")[:MAX_TEXT].lower().split()
        limit = _number(query, "limit", MAX_POINTS, 1, MAX_POINTS)
        found = [s for s in await self._list() if all(w in s["name"].lower() for w in words)]
        if plc := query.get("plc"):
            found = [s for s in found if s["plc"] == plc]
        return {"v": 1, "count": len(found), "series": found[:limit]}

    async def _list(self) -> list[Json]:
        async with self._listing:
            if time.monotonic() - self._known[0] > FRESH_S or not self._known[1]:
                answer = await self._ask("series", {})
                self._known = time.monotonic(), [_shown(s) for s in answer["series"]]
            return self._known[1]

    async def _chosen(self, query: QueryParams) -> list[Json]:
        keys = [k for said in query.getlist("series") for k in said.split(",") if k]
        if not keys:
            raise Refused(400, "bad_request", "name `series=plc/group/machine/field`")
        if len(keys) > MAX_SERIES:
            raise Refused(400, "bad_request", f"{len(keys)} series are more than {MAX_SERIES}")
        by_key = {s["key"]: s for s in await self._list()}
        for key in keys:
            if key not in by_key:
                text = f"no such series: {key[:MAX_TEXT]!r}; /api/history/series lists them"
                raise Refused(404, "no_such_series", text)
        return [by_key[k] for k in dict.fromkeys(keys)]

    async def _curves(self, query: QueryParams) -> Json:
        begin_ms, end_ms = asked_range(query)
        series = await self._chosen(query)
        points = _number(query, "points", 1_000, 1, MAX_POINTS)
        asked: Json = {
            "series": [_identity(s) for s in series],
            "begin_ms": begin_ms,
            "end_ms": end_ms,
        }
        document = {"v": 1, "from": begin_ms, "to": end_ms, "now": now_ms()}
        step_ms = _step_ms(query)
        raw: list[Raw] | None = None
        if step_ms == 0 or (step_ms is None and end_ms - begin_ms <= RAW_MS):
            answer = await self._ask("raw", {**asked, "limit": MAX_POINTS})
            raw = answer["series"]
            if step_ms is None and any(r["cut"] for r in raw):
                raw = None
        if raw is not None:
            return with_raw(document, series, raw, await self._why(series, begin_ms, end_ms))
        more = {"points": points} if step_ms is None else {"step_ms": step_ms}
        answer = await self._ask("rolled", {**asked, **more})
        why = await self._why(series, begin_ms, end_ms)
        return with_rolled(document, series, answer["step_ms"], answer["series"], why)

    async def _why(self, series: list[Json], begin_ms: int, end_ms: int) -> dict[str, Any]:
        """Unknown times by stream; None of those that it would cost too much to ask for."""
        found: dict[str, Any] = {}
        for one in series:
            if one["stream"] in found or end_ms - begin_ms > WHY_MS:
                continue
            stream = _identity(one)[:4]
            ends = {"begin_ms": begin_ms, "end_ms": min(end_ms, now_ms())}
            if ends["begin_ms"] >= ends["end_ms"]:
                continue
            try:
                answer = await self._ask("unknown", {"stream": stream, **ends})
            except Refused:
                continue  # too many messages: the roll-ups say what is known, only not why
            found[one["stream"]] = answer["unknown"]
        return found

    async def _rows(self, query: QueryParams) -> Json:
        return rows(await self._curves(query))

    async def _happened(self, query: QueryParams) -> Json:
        begin_ms, end_ms = asked_range(query)
        plcs = set(query.getlist("plc"))
        events, complete = await asyncio.to_thread(self._events.between, begin_ms, end_ms)
        alarms: list[Json] = []
        try:
            answer = await self._alarms("rang", {"begin_ms": begin_ms, "end_ms": end_ms})
            alarms = answer["alarms"]
            complete = complete and answer["complete"]
        except Unavailable as e:
            complete = complete and e.code == "away"  # where none is configured nothing is missing
        return {
            "v": 1,
            "alarms": [a for a in alarms if not plcs or a["plc"] is None or a["plc"] in plcs],
            "events": [e for e in events if not plcs or _of(e) in plcs | {""}],
            "complete": complete,
        }


def answered(
    act: Callable[[QueryParams], Awaitable[Json]],
) -> Callable[[Request], Awaitable[Response]]:
    """What a route answers; what it refuses, in words."""

    async def answer(request: Request) -> Response:
        try:
            return json_answer(200, await act(request.query_params))
        except Refused as e:
            status, code = (422, "too_much") if e.code == "refused" else (e.status, e.code)
            return json_answer(status, {"error": code, "text": str(e)})
        except Unavailable as e:
            return json_answer(503, {"error": e.code, "text": e.message})

    return answer


def _shown(found: Json) -> Json:
    """A series as the page names it."""
    locatario, plc, group, machine, field = found["series"]
    unit = found["unit"]
    name = " ".join(filter(None, (plc, group, machine, field, f"({unit})" if unit else "")))
    return {
        "key": "/".join((plc, group, machine, field)),
        "stream": "/".join((plc, group, machine)),
        "name": name,
        "locatario": locatario,
        "plc": plc,
        "group": group,
        "machine": machine,
        "field": field,
        **{k: found[k] for k in ("kind", "type", "unit", "first_ms", "last_ms")},
    }


def _identity(series: Json) -> list[str]:
    return [series[k] for k in ("locatario", "plc", "group", "machine", "field")]


def _of(event: Json) -> str:
    """The PLC that an event is of; "" for none, or all."""
    process = str(event.get("process", ""))
    named = (event.get("fields") or {}).get("plc")
    return str(named or (process[7:] if process.startswith("reader-") else ""))


def asked_range(query: QueryParams, zone: ZoneInfo | None = None) -> tuple[int, int]:
    """`from` and `to`, as Unix ms or as people write them (services/runtime/moments.py), in a zone
    or this PC's.
    """
    now = now_ms()
    ends = []
    for name, default in (("from", "-24h"), ("to", "now")):
        try:
            ends.append(moments.moment_ms(query.get(name, default)[:MAX_TEXT], now, zone))
        except ValueError as e:
            raise Refused(400, "bad_request", f"`{name}`: {e}") from None
    if ends[0] >= ends[1]:
        raise Refused(400, "bad_request", "`from` must lie before `to`")
    return ends[0], ends[1]


def _number(query: QueryParams, name: str, default: int, least: int, most: int) -> int:
    said = query.get(name)
    if said is None:
        return default
    if not re.fullmatch(r"\d{1,9}", said) or not least <= int(said) <= most:
        raise Refused(400, "bad_request", f"`{name}` is a number from {least} to {most}")
    return int(said)


def _step_ms(query: QueryParams) -> int | None:
    """0: every value."""
    said = query.get("step")
    if said is None or said == "auto":
        return None
    if said == "raw":
        return 0
    try:
        step_ms = round(units.duration_s(said) * 1_000)
    except ValueError as e:
        raise Refused(400, "bad_request", f"`step`: {e}; or `raw`, `auto`") from None
    if step_ms < 1:
        raise Refused(400, "bad_request", "`step` is longer than 0; or `raw`, `auto`")
    return step_ms
