"""The panel's shifts and OEE: what the historian answers (services/historian/oee.py), as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams
from starlette.routing import Route

from services.metrics.asking import Peer
from services.metrics.history import ANSWER_S, MAX_TEXT, answered, asked_range
from services.runtime.clock import now_ms

Json = dict[str, Any]


class Oee:
    """The routes."""

    def __init__(self, runtime: Path) -> None:
        self._ask = Peer(runtime, "history", "the historian", ANSWER_S)

    def routes(self) -> list[Route]:
        """All of them read."""
        return [
            Route("/api/shifts", answered(self._shifts)),
            Route("/api/oee", answered(self._oee)),
            Route("/api/oee/rows", answered(self._rows)),
            Route("/api/oee/machines", answered(self._machines)),
        ]

    async def _shifts(self, query: QueryParams) -> Json:
        args = await self._range(query) if "from" in query or "to" in query else {}
        return {"v": 1, **await self._ask("shifts", args)}

    async def _oee(self, query: QueryParams) -> Json:
        args = (
            {"shift": query["shift"][:MAX_TEXT]} if "shift" in query else await self._range(query)
        )
        if machine := query.get("machine"):
            args["machine"] = machine[:MAX_TEXT]
        return {"v": 1, **await self._ask("oee", args)}

    async def _rows(self, query: QueryParams) -> Json:
        """For tables and dashboards: a flat row per shift and machine, and one per stop of them
        where ``stops`` is asked for.
        """
        args: Json = {**await self._range(query), "machine": query.get("machine", "")[:MAX_TEXT]}
        if "stops" in query:
            found = await self._ask("oee", args)
            return {"v": 1, "rows": [row for m in found["machines"] for row in _stops(m)]}
        found = await self._ask("oee", {**args, "by": "shift"})
        begins = {s["id"]: s["begin_ms"] for s in found["shifts"]}
        return {"v": 1, "rows": [_flat(r, begins[r["shift"]]) for r in found["rows"]]}

    async def _machines(self, _query: QueryParams) -> Json:
        """For a choice: all of them, then each."""
        now = now_ms()
        found = await self._ask("shifts", {"begin_ms": now, "end_ms": now})
        every = {"machine": "*", "value": ""}
        return {
            "v": 1,
            "machines": [every, *({"machine": m, "value": m} for m in found["machines"])],
        }

    async def _range(self, query: QueryParams) -> Json:
        """Times of day are those of the shifts' zone."""
        now = now_ms()
        answer = await self._ask("shifts", {"begin_ms": now, "end_ms": now})
        begin_ms, end_ms = asked_range(query, ZoneInfo(answer["timezone"]))
        return {"begin_ms": begin_ms, "end_ms": end_ms}


def _flat(row: Json, begin_ms: int) -> Json:
    return {
        "time": begin_ms,
        **{k: row[k] for k in ("shift", "machine", "availability", "performance", "quality")},
        "oee": row["oee"],
        **row["pieces"],
        "stops": row["stop_count"],
        **{f"{part}_s": ms / 1_000 for part, ms in row["parts_ms"].items()},
    }


def _stops(machine: Json) -> list[Json]:
    return [
        {
            "time": stop["begin_ms"],
            "end": stop["end_ms"],
            "machine": machine["name"],
            "seconds": reason["ms"] / 1_000,
            "code": reason["code"],
            "reason": machine["words"].get(reason["code"], reason["code"]),
            "planned": reason["code"] in machine["planned"],
        }
        for stop in machine["stops"]
        for reason in stop["reasons"]
    ]
