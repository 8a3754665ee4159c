"""HistoryRead: what the historian of this box keeps, as OPC UA asks for it (OPC 10000-11, 6.5).

Every question goes to the running historian over its wire, one at a time, from a thread: neither
the server's loop nor this process reads any file of it. A continuation point says where to go on
and nothing else, so none is kept, none runs out, and it holds over a restart.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from bus.asking import NoAnswer, ask
from bus.frames import Request
from services.publisher.opcua import values
from services.publisher.opcua.points import NULL, Point
from services.runtime.clock import now_ms

_C = ua.StatusCodes
MAX_NODES = 100
"""Of one request."""
MAX_VALUES = 5_000
"""Of one answer to one node; 20,000 of a request."""
MAX_REQUEST_VALUES = 20_000
MAX_WAITING = 20
"""Requests that wait for the historian, of all sessions."""
ANSWER_S = 4.0
"""The historian gives up after 2 s."""
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# DateTime.MinValue and what lies about it: "not given".
_NEVER = datetime(1601, 1, 2, tzinfo=UTC)
_POINT = struct.Struct(">cqI")
"""Direction, ms, how many of that ms were given."""
_QUALITIES = ("good", "uncertain", "bad")
# A bound is looked for so far before the start (or behind the end): what holds no longer is none.
_BOUND_MS = (1_000, 30_000, 900_000, 7_200_000)
_AGGREGATES = {
    ua.ObjectIds.AggregateFunction_Average: "mean",
    ua.ObjectIds.AggregateFunction_TimeAverage: "weighted",
    ua.ObjectIds.AggregateFunction_Minimum: "low",
    ua.ObjectIds.AggregateFunction_Maximum: "high",
    ua.ObjectIds.AggregateFunction_Count: "count",
}
# OPC 10000-4, 7.39.1: info type DataValue, historian bit Calculated.
_CALCULATED = 0x0400 | 0x0001
_WHOLE = ua.StatusCode(_C.Good | _CALCULATED)
_PART = ua.StatusCode(_C.UncertainDataSubNormal | _CALCULATED)
_NOTHING = ua.StatusCode(_C.BadNoData)
_NO_BOUND = ua.StatusCode(_C.BadBoundNotFound)


class Refused(Exception):
    """A node's result is this status code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Row:
    """A value of the past."""

    ts_ms: int
    value: Any
    quality: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Span:
    """What a raw read asks for. Times are Unix ms; ``begin_ms`` ≤ ``end_ms``."""

    begin_ms: int
    end_ms: int
    backwards: bool
    count: int
    """At most so many; 0: all."""


class Past:
    """The history of one box, for the sessions of one server."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def read(
        self, aspace: AddressSpace, params: ua.HistoryReadParameters
    ) -> list[ua.HistoryReadResult]:
        """Of nodes that the session sees."""
        details = params.HistoryReadDetails
        if params.TimestampsToReturn == ua.TimestampsToReturn.Neither:
            return [_failed(_C.BadTimestampsToReturnInvalid) for _ in params.NodesToRead]
        if params.ReleaseContinuationPoints:
            return [ua.HistoryReadResult() for _ in params.NodesToRead]
        if self._waiting >= MAX_WAITING:
            return [_failed(_C.BadResourceUnavailable) for _ in params.NodesToRead]
        room = min(MAX_VALUES, MAX_REQUEST_VALUES // max(1, len(params.NodesToRead)))
        results = []
        self._waiting += 1
        try:
            for i, item in enumerate(params.NodesToRead):
                try:
                    results.append(await self._node(aspace, item, details, i, room))
                except Refused as e:
                    results.append(_failed(e.code))
        finally:
            self._waiting -= 1
        return results

    async def _node(
        self, aspace: AddressSpace, item: ua.HistoryReadValueId, details: Any, i: int, room: int
    ) -> ua.HistoryReadResult:
        data = aspace.get(item.NodeId)
        if data is None:
            raise Refused(_C.BadNodeIdUnknown)
        point = data.attributes.get(ua.AttributeIds.Value)
        if not isinstance(point, Point) or item.IndexRange:
            raise Refused(_C.BadHistoryOperationUnsupported)
        series = _series(item.NodeId)
        if isinstance(details, ua.ReadRawModifiedDetails) and not details.IsReadModified:
            found, more = await self._raw(series, point, details, item.ContinuationPoint, room)
        elif isinstance(details, ua.ReadProcessedDetails):
            if len(details.AggregateType) <= i:
                raise Refused(_C.BadAggregateListMismatch)
            of, after = details.AggregateType[i], item.ContinuationPoint
            found, more = await self._processed(series, point, details, of, after, room)
        else:
            raise Refused(_C.BadHistoryOperationUnsupported)
        code = _C.Good if found else _C.GoodNoData
        result = ua.HistoryReadResult(StatusCode=ua.StatusCode(code), ContinuationPoint=more)
        result.HistoryData = ua.HistoryData(DataValues=found)
        return result

    # -- raw -------------------------------------------------------------------------------------

    async def _raw(
        self,
        series: list[str],
        point: Point,
        details: ua.ReadRawModifiedDetails,
        after: bytes | None,
        room: int,
    ) -> tuple[list[ua.DataValue], bytes | None]:
        span = _span(details)
        wanted = min(span.count or room, room)
        bounds = bool(details.ReturnBounds)
        out: list[ua.DataValue] = []
        begin_ms, end_ms, from_ms, skip = span.begin_ms, span.end_ms, -1, 0
        if after:
            from_ms, skip = _unpack(after, span)
            begin_ms, end_ms = (begin_ms, from_ms + 1) if span.backwards else (from_ms, end_ms)
        elif bounds:
            first_ms = span.end_ms if span.backwards else span.begin_ms
            bound = await self._bound(series, first_ms, before=not span.backwards)
            if bound is None or bound.ts_ms != first_ms:
                out.append(_shown(point, bound) if bound else _missing(first_ms))
        take = self._backwards if span.backwards else self._forwards
        rows = await take(series, begin_ms, end_ms, wanted - len(out) + skip + 1)
        rows = rows[skip:]
        given, rest = rows[: wanted - len(out)], rows[wanted - len(out) :]
        out += [_shown(point, row) for row in given]
        last_ms = span.begin_ms if span.backwards else span.end_ms
        if rest:
            at_ms = rest[0].ts_ms
        elif bounds and len(out) >= wanted:  # there is no room for the last bound
            at_ms = last_ms if span.backwards else last_ms - 1
        else:
            if bounds:
                bound = await self._bound(series, last_ms, before=span.backwards)
                out.append(_shown(point, bound) if bound else _missing(last_ms))
            return out, None
        given_then = sum(row.ts_ms == at_ms for row in given) + (skip if at_ms == from_ms else 0)
        return out, _POINT.pack(b"<" if span.backwards else b">", at_ms, given_then)

    async def _forwards(
        self, series: list[str], begin_ms: int, end_ms: int, count: int
    ) -> list[_Row]:
        rows: list[_Row] = []
        while begin_ms < end_ms and len(rows) < count:
            page, is_cut = await self._page(series, begin_ms, end_ms)
            if not is_cut:
                rows += page
                break
            # Those of the last ms may not be all.
            whole = [row for row in page if row.ts_ms < page[-1].ts_ms] or page
            rows += whole
            begin_ms = whole[-1].ts_ms + 1
        return rows[:count]

    async def _backwards(
        self, series: list[str], begin_ms: int, end_ms: int, count: int
    ) -> list[_Row]:
        rows: list[_Row] = []
        length_ms = 60_000
        while begin_ms < end_ms and len(rows) < count:
            from_ms = max(begin_ms, end_ms - length_ms)
            page, is_cut = await self._page(series, from_ms, end_ms)
            if is_cut and length_ms > 1:
                length_ms = max(1, length_ms // 8)
                continue
            rows += reversed(page)
            end_ms = from_ms
            if len(page) < MAX_VALUES // 16:
                length_ms *= 8
        return rows[:count]

    async def _bound(self, series: list[str], at_ms: int, *, before: bool) -> _Row | None:
        """The value at a time, or the nearest before (or behind) it."""
        for far_ms in _BOUND_MS:
            ends = (at_ms - far_ms, at_ms + 1) if before else (at_ms, at_ms + far_ms)
            page, _ = await self._page(series, *ends)
            if page:
                return page[-1] if before else page[0]
        return None

    async def _page(self, series: list[str], begin_ms: int, end_ms: int) -> tuple[list[_Row], bool]:
        """In order of time, at most MAX_VALUES; whether there are more."""
        args = {"series": [series], "begin_ms": begin_ms, "end_ms": end_ms, "limit": MAX_VALUES}
        (found,) = (await self._ask("raw", args))["series"]
        reasons = found["reasons"]
        columns = zip(found["ts_ms"], found["values"], found["quality"], strict=True)
        rows = [_Row(*row, reasons.get(str(i), "")) for i, row in enumerate(columns)]
        return rows, bool(found["cut"])

    # -- processed -------------------------------------------------------------------------------

    async def _processed(
        self,
        series: list[str],
        point: Point,
        details: ua.ReadProcessedDetails,
        of: ua.NodeId,
        after: bytes | None,
        room: int,
    ) -> tuple[list[ua.DataValue], bytes | None]:
        name = _AGGREGATES.get(of.Identifier) if of.NamespaceIndex == 0 else None
        is_number = point.kind.variant.value <= ua.VariantType.Double.value
        if name is None or not is_number or point.kind.dims:
            raise Refused(_C.BadAggregateNotSupported)
        begin_ms, end_ms = _ms(details.StartTime), _ms(details.EndTime)
        if begin_ms is None or end_ms is None or begin_ms >= end_ms:
            raise Refused(_C.BadInvalidArgument)
        step_ms = round(details.ProcessingInterval or end_ms - begin_ms)
        if step_ms < 1_000:
            raise Refused(_C.BadInvalidArgument)
        if after:
            begin_ms = _unpack(after, _Span(begin_ms, end_ms, False, 0))[0]
        until_ms = min(end_ms, begin_ms + room * step_ms)
        args = {
            "series": [series], "begin_ms": begin_ms, "end_ms": until_ms, "step_ms": step_ms,
        }  # fmt: skip
        (found,) = (await self._ask("rolled", args))["series"]
        columns = zip(found["begin_ms"], found[name], found["known_ms"], strict=True)
        shown = [_aggregate(name, ts, v, known, step_ms) for ts, v, known in columns]
        return shown, None if until_ms >= end_ms else _POINT.pack(b">", until_ms, 0)

    # -- the historian ---------------------------------------------------------------------------

    async def _ask(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            question = Request(verb, args)
            try:
                reply = await asyncio.to_thread(ask, self._runtime, "history", question, ANSWER_S)
            except NoAnswer:
                raise Refused(_C.BadResourceUnavailable) from None
        if reply.error:  # more than one question may cost
            raise Refused(_C.BadRequestTooLarge)
        found: dict[str, Any] = reply.result
        return found


def _series(node: ua.NodeId) -> list[str]:
    """tenant / PLC / group / [machine] / field."""
    parts = str(node.Identifier).split("/")
    machine = parts[3] if len(parts) == 5 else ""
    return [*parts[:3], machine, parts[-1]]


def _ms(time: datetime | None) -> int | None:
    """None where it is not given."""
    if time is None:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return None if time < _NEVER else (time - _EPOCH) // _MS


def _span(details: ua.ReadRawModifiedDetails) -> _Span:
    """Two of start, end and count must be given; the order of the times is the direction."""
    start, end, count = _ms(details.StartTime), _ms(details.EndTime), details.NumValuesPerNode
    if (start is not None) + (end is not None) + (count > 0) < 2:
        raise Refused(_C.BadHistoryOperationInvalid)
    if start is None:
        assert end is not None
        return _Span(0, end + 1, True, count)
    if end is None:
        return _Span(start, now_ms() + 1, False, count)
    if start > end:
        return _Span(end + 1, start + 1, True, count)
    return _Span(start, max(end, start + 1), False, count)


def _unpack(point: bytes, span: _Span) -> tuple[int, int]:
    try:
        direction, at_ms, skip = _POINT.unpack(point)
    except struct.error:
        raise Refused(_C.BadContinuationPointInvalid) from None
    is_ours = direction == (b"<" if span.backwards else b">")
    if not is_ours or not span.begin_ms <= at_ms < span.end_ms or skip > MAX_VALUES:
        raise Refused(_C.BadContinuationPointInvalid)
    return at_ms, skip


def _shown(point: Point, row: _Row) -> ua.DataValue:
    """As it was shown then."""
    word = _QUALITIES[row.quality]
    name = point.field.name
    # The message's own word is no reason.
    bad = {name: row.reason} if row.reason and row.reason not in _QUALITIES else {}
    code = values.status(word, bad, name, row.value is not None)
    variant = NULL
    if row.value is not None:
        try:
            variant = point.kind.wrap(row.value)
        except (ValueError, TypeError, OverflowError):
            code = values.TYPE_CHANGED
    return ua.DataValue(variant, code, values.time_of(row.ts_ms))


def _missing(ts_ms: int) -> ua.DataValue:
    return ua.DataValue(NULL, _NO_BOUND, values.time_of(ts_ms))


def _aggregate(name: str, ts_ms: int, value: Any, known_ms: int, step_ms: int) -> ua.DataValue:
    time = values.time_of(ts_ms)
    if name == "count":
        variant = ua.Variant(int(value), ua.VariantType.Int32)
    elif value is None:
        return ua.DataValue(NULL, _NOTHING, time)
    else:
        variant = ua.Variant(float(value), ua.VariantType.Double)
    return ua.DataValue(variant, _WHOLE if known_ms >= step_ms else _PART, time)


def _failed(code: int) -> ua.HistoryReadResult:
    return ua.HistoryReadResult(StatusCode=ua.StatusCode(code))


def capabilities() -> Iterator[tuple[int, ua.Variant]]:
    """What the server says that its history can (HistoryServerCapabilities): node → value."""
    o, boolean = ua.ObjectIds, ua.VariantType.Boolean
    yield o.HistoryServerCapabilities_AccessHistoryDataCapability, ua.Variant(True, boolean)
    yield o.HistoryServerCapabilities_ServerTimestampSupported, ua.Variant(False, boolean)
    largest = ua.Variant(MAX_VALUES, ua.VariantType.UInt32)
    yield o.HistoryServerCapabilities_MaxReturnDataValues, largest
