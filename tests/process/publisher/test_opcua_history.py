"""HistoryRead of an ``opcua`` output, with asyncua's and node-opcua's clients, beside a real
historian.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest
from asyncua import ua

from services.publisher.opcua.values import time_of
from services.runtime.clock import now_ms
from tests.kit.opcua_foreign import NodeClient
from tests.kit.opcua_rig import body, plc
from tests.kit.opcua_seen import TEMPERATURE, Rig, Seen, go, rig
from tests.kit.past import historian

# Where packages of npm are not there yet, the first test fetches them.
pytestmark = pytest.mark.timeout(300)

START = now_ms() // 3_600_000 * 3_600_000 - 86_400_000
SECRET = "beta/forno-01/db500/temperatura"
GROUP = {
    "locatario": "acme", "plc": "prensa-01", "group": "db500", "hold_ms": 65_000,
    "fields": [
        {"name": n, "type": t, "unit": "", "counts": False, "scaled": False}
        for n, t in (("temperatura", "REAL"), ("rodando", "BOOL"), ("ciclos", "DINT"))
    ],
}  # fmt: skip
COUNT = 400


def past() -> list[tuple[str, str, bytes]]:
    """A message a second; every tenth uncertain, the last without its temperature."""
    out = []
    for n in range(COUNT):
        values: dict[str, Any] = {"temperatura": n / 2, "rodando": n % 2 == 0, "ciclos": n}
        more: dict[str, Any] = {}
        if n % 10 == 9:
            more = {"quality": "uncertain", "bad": {"*": "cpu_stop"}}
        if n == COUNT - 1:
            del values["temperatura"]
            more = {"bad": {"temperatura": "address_out_of_range"}}
        out.append(("acme", "prensa-01", body(n + 1, values, ts=START + 1_000 * n, **more)))
    out.append(("beta", "forno-01", body(1, {"temperatura": 9.0}, plc="forno-01",
                                         locatario="beta", ts=START)))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def r() -> Iterator[Rig]:
    """One server with a past, for all that only read."""
    users = [("ana", "segredo", None), ("bia", "segredo", ["acme"])]
    plcs = [plc(), plc("forno-01", "beta")]
    with rig(plcs, history=True, users=users) as r, historian(r.run, past(), [GROUP]):
        yield r


def at(n: float) -> datetime:
    return time_of(START + round(1_000 * n))


async def raw(
    seen: Seen, path: str, start: datetime | None, end: datetime | None, count: int = 0,
    bounds: bool = False, most: int = 100,
) -> list[list[ua.DataValue]]:  # fmt: skip
    """The values of each answer, up to the last continuation point."""
    never = datetime(1601, 1, 1, tzinfo=UTC)
    details = ua.ReadRawModifiedDetails(
        IsReadModified=False, StartTime=start or never, EndTime=end or never,
        NumValuesPerNode=count, ReturnBounds=bounds,
    )  # fmt: skip
    pages: list[list[ua.DataValue]] = []
    point = None
    while len(pages) < most:
        result = await seen.node(path).history_read(details, point)
        result.StatusCode.check()
        pages.append(list(result.HistoryData.DataValues))
        point = result.ContinuationPoint
        if point is None:
            break
    return pages


def told(values: list[ua.DataValue]) -> list[tuple[int, Any, str]]:
    """(second, value, status)."""
    return [
        (round((v.SourceTimestamp.replace(tzinfo=UTC).timestamp() * 1_000 - START) / 1_000),
         v.Value.Value if v.Value else None, v.StatusCode.name) for v in values
    ]  # fmt: skip


def stood(n: int) -> tuple[int, Any, str]:
    if n == COUNT - 1:
        return n, None, "BadConfigurationError"
    return n, n / 2, "UncertainLastUsableValue" if n % 10 == 9 else "Good"


def test_raw_values_as_they_were(r: Rig) -> None:
    async def work() -> None:
        async with r.client() as seen:
            (all_of_it,) = await raw(seen, TEMPERATURE, at(0), at(COUNT))
            assert told(all_of_it) == [stood(n) for n in range(COUNT)]
            assert all_of_it[0].Value.VariantType == ua.VariantType.Float
            (cycles,) = await raw(seen, "acme/prensa-01/db500/ciclos", at(10), at(12))
            assert [v.Value.Value for v in cycles] == [10, 11]
            # In pages, forwards and backwards.
            pages = await raw(seen, TEMPERATURE, at(5), at(305), 90)
            assert [len(p) for p in pages] == [90, 90, 90, 30]
            assert told(list(chain(*pages))) == [stood(n) for n in range(5, 305)]
            pages = await raw(seen, TEMPERATURE, at(305), at(5), 90)
            assert told(list(chain(*pages))) == [stood(n) for n in range(305, 5, -1)]
            # By a time and a number: what follows, or what was before.
            (some, *_) = await raw(seen, TEMPERATURE, at(7), None, 4, most=1)
            assert told(some) == [stood(n) for n in range(7, 11)]
            (some, *_) = await raw(seen, TEMPERATURE, None, at(7), 4, most=1)
            assert told(some) == [stood(n) for n in (7, 6, 5, 4)]
            (one,) = await raw(seen, TEMPERATURE, at(7), at(7))
            assert told(one) == [stood(7)]
            (none,) = await raw(seen, TEMPERATURE, at(7.2), at(7.8))
            assert none == []
            # Bounds: what held at the start, what came at the end, or that there is none.
            (some,) = await raw(seen, TEMPERATURE, at(7.5), at(9.5), bounds=True)
            assert told(some) == [stood(n) for n in (7, 8, 9, 10)]
            (some,) = await raw(seen, TEMPERATURE, at(-10_000), at(1), bounds=True)
            assert told(some) == [(-10_000, None, "BadBoundNotFound"), stood(0), stood(1)]
            pages = await raw(seen, TEMPERATURE, at(0.5), at(2.5), 2, bounds=True)
            assert told(list(chain(*pages))) == [stood(n) for n in (0, 1, 2, 3)]

    go(work)


def test_sums_of_intervals(r: Rig) -> None:
    async def work() -> None:
        async with r.client() as seen:
            o = ua.ObjectIds
            for kind, wanted in (
                (o.AggregateFunction_Minimum, [0.0, 60.0]),
                (o.AggregateFunction_Maximum, [59.0, 119.0]),
                (o.AggregateFunction_Count, [108, 108]),
            ):
                found = await processed(seen, kind, 0, 240, 120_000)
                assert [v.Value.Value for v in found] == wanted, kind
                # Every tenth second is not known; "calculated" is what 0x0401 says.
                code = ua.StatusCodes.UncertainDataSubNormal | 0x0401
                assert [v.StatusCode.value for v in found] == [code] * 2
            (mean,) = await processed(seen, o.AggregateFunction_Average, 0, 9, 9_000)
            assert (mean.Value.Value, mean.StatusCode.value) == (2.0, 0x0401)
            (mean,) = await processed(seen, o.AggregateFunction_TimeAverage, 0, 9, 9_000)
            assert mean.Value.Value == 2.0
            (none,) = await processed(seen, o.AggregateFunction_Average, -900, -600, 300_000)
            assert none.StatusCode.value == ua.StatusCodes.BadNoData
            with pytest.raises(ua.uaerrors.BadAggregateNotSupported):
                await processed(seen, o.AggregateFunction_Range, 0, 9, 9_000)

    go(work)


async def processed(seen: Seen, of: int, begin: int, end: int, step_ms: int) -> Any:
    details = ua.ReadProcessedDetails(
        StartTime=at(begin), EndTime=at(end), ProcessingInterval=float(step_ms),
        AggregateType=[ua.NodeId(of)],
    )  # fmt: skip
    result = await seen.node(TEMPERATURE).history_read(details)
    result.StatusCode.check()
    assert result.ContinuationPoint is None
    return result.HistoryData.DataValues


def test_who_may_not_and_what_may_not_be_asked(r: Rig) -> None:
    async def work() -> None:
        async with r.client("bia") as bia, r.client("ana") as ana:
            assert len((await raw(ana, SECRET, at(0), at(9)))[0]) == 1
            with pytest.raises(ua.uaerrors.BadNodeIdUnknown):
                await raw(bia, SECRET, at(0), at(9))
            with pytest.raises(ua.uaerrors.BadHistoryOperationInvalid):
                await raw(bia, TEMPERATURE, at(0), None)
            status = "acme/prensa-01/_status/status"
            with pytest.raises(ua.uaerrors.BadHistoryOperationUnsupported):
                await raw(bia, status, at(0), at(9))
            details = ua.ReadRawModifiedDetails(False, at(0), at(9), 2, False)
            for point in (b"x", b"<" + b"\0" * 12, b">" + b"\xff" * 12):
                result = await bia.node(TEMPERATURE).history_read(details, point)
                assert result.StatusCode.name == "BadContinuationPointInvalid"
            level = await bia.node(TEMPERATURE).read_attribute(ua.AttributeIds.AccessLevel)
            assert level.Value.Value == 5  # CurrentRead, HistoryRead

    go(work)


def test_without_a_historian_that_answers() -> None:
    with rig(history=True) as r:

        async def work() -> None:
            async with r.client() as seen:
                with pytest.raises(ua.uaerrors.BadResourceUnavailable):
                    await raw(seen, TEMPERATURE, at(0), at(9))

        go(work)


def test_node_opcua_reads_the_same(r: Rig) -> None:
    ends = [at(n).isoformat() for n in (5, 25)]
    with NodeClient(r.port, r.run, r.own, [TEMPERATURE], user="ana", password="segredo",
                    past=ends) as other:  # fmt: skip
        assert other.first("history")["status"] in ("Good", "GoodNoData")
        found = other.first("past")["values"]
    shown = [(v["value"], v["status"]) for v in found]
    assert shown == [stood(n)[1:] for n in range(5, 26)]  # with the bound at the end
    times = [datetime.fromisoformat(v["source"]) for v in found]
    assert times == [at(n) for n in range(5, 26)]
