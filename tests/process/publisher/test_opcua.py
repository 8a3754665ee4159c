"""The ``opcua`` output, as clients see it: values, quality, what stays over a restart."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from asyncua import ua

from bus.frames import Heartbeat, Reply, Request
from bus.sockets import Bus
from services.runtime.clock import now_ms
from tests.kit.common import BUSY_S, free_port, until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.opcua_foreign import NodeClient
from tests.kit.opcua_rig import (
    body,
    client_certificate,
    opcua_config,
    plc,
    trust,
    user,
)
from tests.kit.opcua_seen import TEMPERATURE, Rig, Seen, fill, go, rig
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder

_C = ua.StatusCodes


def test_browse_read_watch_and_nothing_else() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen:
                assert await seen.tree() == [
                    "acme", "acme/prensa-01",
                    *(f"acme/prensa-01/_status{n}"
                      for n in ("", "/status", "/scan_ms", "/latency_ms", "/failure")),
                    "acme/prensa-01/db500", TEMPERATURE, f"{TEMPERATURE}/EngineeringUnits",
                    "acme/prensa-01/db500/rodando", "acme/prensa-01/db500/ciclos",
                ]  # fmt: skip
                node = seen.node(TEMPERATURE)
                found = await node.read_data_value()
                assert (found.Value.Value, found.Value.VariantType) == (81.5, ua.VariantType.Float)
                age_s = now_ms() / 1e3 - found.SourceTimestamp.timestamp()
                assert -1 < age_s < 20
                assert (await node.read_description()).Text == "do molde"
                unit = await seen.node(f"{TEMPERATURE}/EngineeringUnits").read_value()
                assert (unit.DisplayName.Text, unit.UnitId) == ("°C", 4408652)
                await seen.watch(TEMPERATURE, "acme/prensa-01/db500/ciclos")
                fill(r, 2, temperatura=82.5)
                await seen.until(lambda: (TEMPERATURE, 82.5, "Good") in seen.changes)
                await seen.until(lambda: len(seen.changes) == 3)  # `ciclos` did not change
                with pytest.raises(ua.uaerrors.BadNotWritable):
                    await node.write_value(1.0)
                with pytest.raises(ua.uaerrors.BadHistoryOperationUnsupported):
                    await node.read_raw_history()
                with pytest.raises(ua.uaerrors.BadServiceUnsupported):
                    await seen.client.nodes.objects.add_object(seen.namespace, "x")
                with pytest.raises(ua.uaerrors.BadServiceUnsupported):
                    await seen.client.nodes.server.call_method("0:GetMonitoredItems", 1)

        go(work)


def test_quality_becomes_status() -> None:
    fields = [
        {"name": "a", "type": "REAL"}, {"name": "b", "type": "INT"}, {"name": "c", "type": "INT"},
    ]  # fmt: skip
    group = {"name": "db500", "machines": [None], "timezone": "UTC", "fields": fields}
    path = "acme/prensa-01/db500/"
    with rig([plc(groups=[group])]) as r:
        seq = 0

        def say(**more: Any) -> None:
            nonlocal seq
            seq += 1
            r.peer.add(1, bodies=[body(seq, more.pop("values"), **more)])
            r.peer.wait_done(5)

        async def codes(seen: Seen) -> list[str]:
            read = [await seen.read(f"{path}{n}") for n in "abc"]
            assert all((d.Value.Value is None) == d.StatusCode.is_bad() for d in read)
            return [d.StatusCode.name for d in read]

        async def settle(seen: Seen, wanted: list[str]) -> None:
            end_s = time.monotonic() + BUSY_S
            while (found := await codes(seen)) != wanted:
                assert time.monotonic() < end_s, f"{found}, not {wanted}"
                await asyncio.sleep(0.01)

        async def work() -> None:
            async with r.client() as seen:
                await settle(seen, ["BadWaitingForInitialData"] * 3)
                say(values={"a": 1.5, "b": 2, "c": 3})
                await settle(seen, ["Good"] * 3)
                say(values={"b": 2}, bad={"a": "nan", "c": "address_out_of_range"})
                await settle(seen, ["BadOutOfRange", "Good", "BadConfigurationError"])
                everything = {"a": 1.5, "b": 2, "c": 3}
                say(values=everything, quality="uncertain", bad={"*": "cpu_stop"})
                await settle(seen, ["UncertainLastUsableValue"] * 3)
                say(values=everything, quality="uncertain", bad={"*": "clock_unsynchronised"})
                await settle(seen, ["Uncertain"] * 3)
                say(values={}, quality="bad", bad={"*": "plc_offline"})
                await settle(seen, ["BadNoCommunication"] * 3)
                say(values=everything)
                await settle(seen, ["Good"] * 3)
                await seen.watch(f"{path}a")
                await seen.until(lambda: len(seen.changes) == 1)
                beat: dict[str, Any] = {
                    "plc": "prensa-01",
                    "locatario": "acme",
                    "ip": "x",
                    "interval_s": 10.0,
                }
                r.peer.beat(Heartbeat(**beat, ts_ms=now_ms(), status="offline"))
                await settle(seen, ["BadNoCommunication"] * 3)
                await seen.until(lambda: seen.changes[-1][1:] == (None, "BadNoCommunication"))
                status = await seen.read("acme/prensa-01/_status/status")
                assert status.Value.Value == "offline"
                r.peer.beat(Heartbeat(**beat, ts_ms=now_ms(), status="online"))
                await settle(seen, ["Good"] * 3)
                await seen.until(lambda: seen.changes[-1][1:] == (1.5, "Good"))

        go(work)


def test_alarms() -> None:
    """What the alarm engine says on its wire; and that it does not answer."""
    path = "acme/_alarms/quente/"
    active = f"{path}active"
    alarm = {
        "rule": "quente", "severity": "critica", "locatario": "acme", "site": "planta-sp",
        "plc": "prensa-01", "group": "db500", "machine": None, "field": "temperatura",
        "state": "disparando", "since": 1_764_000_000_000, "value": 91.0, "text": "91 °C",
        "confirmado": None, "silenciado": None, "sem_medida": False,
    }  # fmt: skip
    cooling = {**alarm, "rule": "fria", "state": "resfriando"}
    alarms = [{"locatario": "acme", "name": "quente"}, {"locatario": "acme", "name": "fria"}]
    with rig(alarms=alarms) as r, closing(Bus(r.run)) as bus:
        port = bus.bind("alarms")

        async def answer(said: list[dict[str, Any]], done: Callable[[], bool]) -> None:
            end_s = time.monotonic() + BUSY_S
            while not done():
                assert time.monotonic() < end_s, "not told"
                while (frame := port.receive()) is not None:
                    assert frame == Request("list", {})
                    port.send(Reply({"alarms": said, "count": len(said), "history": []}))
                await asyncio.sleep(0.01)

        async def work() -> None:
            async with r.client() as seen:
                await seen.watch(active)
                changes = seen.changes
                await answer([alarm, cooling], lambda: changes[-1:] == [(active, True, "Good")])
                for name, value in (("count", 1), ("severity", "critica"), ("text", "91 °C"),
                                    ("acknowledged", False)):  # fmt: skip
                    assert (await seen.read(path + name)).Value.Value == value
                since = (await seen.read(f"{path}since")).Value.Value
                assert since.timestamp() == 1_764_000_000
                fria = await seen.read("acme/_alarms/fria/active")
                assert (fria.Value.Value, fria.StatusCode.name) == (False, "Good")
                never = await seen.read("acme/_alarms/fria/since")
                assert (never.Value.Value, never.StatusCode.name) == (None, "Good")
                await answer([], lambda: changes[-1:] == [(active, False, "Good")])
                port.close()
                lost = [(active, None, "BadNoCommunication")]
                await seen.until(lambda: changes[-1:] == lost, 12)

        go(work)


def test_only_changes_are_told_unless_times_are_asked_for() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen, r.client() as other:
                await seen.watch(TEMPERATURE)
                every = await other.client.create_subscription(50, other)
                trigger = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
                assert await every._subscribe(other.node(TEMPERATURE), mfilter=trigger)
                await seen.until(lambda: len(seen.changes) == len(other.changes) == 1)
                fill(r, 2, ciclos=8)
                await other.until(lambda: len(other.changes) == 2)
                await asyncio.sleep(0.2)
                assert len(seen.changes) == 1
                band = ua.DataChangeFilter(Trigger=1, DeadbandType=1, DeadbandValue=2.0)
                for path, code in (
                    ("acme/prensa-01/db500/rodando", ua.uaerrors.BadFilterNotAllowed),
                    ("acme/prensa-01/_status/status", ua.uaerrors.BadFilterNotAllowed),
                ):
                    with pytest.raises(code):
                        await every._subscribe(other.node(path), mfilter=band)
                other.changes.clear()
                await every.unsubscribe(await every._subscribe(other.node(TEMPERATURE)))
                assert await every._subscribe(other.node(TEMPERATURE), mfilter=band)

        go(work)


TYPES: list[tuple[dict[str, Any], Any, ua.VariantType, Any]] = [
    ({"type": "BOOL"}, True, ua.VariantType.Boolean, True),
    ({"type": "BYTE"}, 255, ua.VariantType.Byte, 255),
    ({"type": "SINT"}, -128, ua.VariantType.SByte, -128),
    ({"type": "INT"}, -32768, ua.VariantType.Int16, -32768),
    ({"type": "WORD"}, 65535, ua.VariantType.UInt16, 65535),
    ({"type": "DINT"}, -(2**31), ua.VariantType.Int32, -(2**31)),
    ({"type": "DWORD"}, 2**32 - 1, ua.VariantType.UInt32, 2**32 - 1),
    ({"type": "LINT"}, "-9223372036854775808", ua.VariantType.Int64, -(2**63)),
    ({"type": "ULINT"}, "18446744073709551615", ua.VariantType.UInt64, 2**64 - 1),
    ({"type": "LWORD"}, 7, ua.VariantType.UInt64, 7),
    ({"type": "REAL"}, 0.1, ua.VariantType.Float, 0.10000000149011612),
    ({"type": "REAL", "scale": [0.1, 2.0]}, 0.12, ua.VariantType.Double, 0.12),
    ({"type": "INT", "scale": [0.1, 2.0]}, 5.3, ua.VariantType.Double, 5.3),
    ({"type": "LREAL"}, 0.1, ua.VariantType.Double, 0.1),
    ({"type": "STRING[20]"}, "água\n", ua.VariantType.String, "água\n"),
    ({"type": "WSTRING[20]"}, "高炉", ua.VariantType.String, "高炉"),
    ({"type": "CHAR"}, "x", ua.VariantType.String, "x"),
    ({"type": "TIME"}, -5, ua.VariantType.Double, -5.0),
    ({"type": "LTIME"}, 5, ua.VariantType.Int64, 5),
    ({"type": "TOD"}, "01:02:03.400", ua.VariantType.String, "01:02:03.400"),
    # São Paulo's, three hours behind.
    ({"type": "DTL"}, "2026-11-30T09:00:00.123456789", ua.VariantType.DateTime,
     "2026-11-30T12:00:00.123456+00:00"),
    ({"type": "DATE"}, "2001-02-03", ua.VariantType.DateTime, "2001-02-03T02:00:00+00:00"),
    ({"type": "INT[1..3]"}, [1, 2, 3], ua.VariantType.Int16, [1, 2, 3]),
    ({"type": "INT[0..1,0..2]"}, [[1, 2, 3], [4, 5, 6]], ua.VariantType.Int16,
     [[1, 2, 3], [4, 5, 6]]),
    ({"type": "LINT[0..1]"}, ["9223372036854775807", 1], ua.VariantType.Int64, [2**63 - 1, 1]),
]  # fmt: skip


def test_every_type() -> None:
    fields = [{"name": f"t{i}", **field} for i, (field, *_) in enumerate(TYPES)]
    group = {"name": "db500", "machines": ["m00", "m01"], "timezone": "America/Sao_Paulo",
             "fields": fields}  # fmt: skip
    with rig([plc(groups=[group])]) as r:
        shown = {f"t{i}": value for i, (_, value, *_) in enumerate(TYPES)}
        r.peer.add(1, bodies=[body(1, shown, machine="m01")])
        r.peer.wait_done(5)

        async def work() -> None:
            async with r.client() as seen:
                for i, (field, _, variant, value) in enumerate(TYPES):
                    path = f"acme/prensa-01/db500/m01/t{i}"
                    found = await seen.read(path)
                    what = found.Value.Value
                    is_date = variant is ua.VariantType.DateTime
                    got = what.isoformat() if is_date and hasattr(what, "isoformat") else what
                    assert (found.StatusCode.name, got) == ("Good", value), field
                    assert found.Value.VariantType == variant, field
                    kind = await seen.node(path).read_data_type()
                    number = 290 if field["type"] == "TIME" else variant.value
                    assert kind.Identifier == number, field
                empty = await seen.read("acme/prensa-01/db500/m00/t0")
                assert empty.StatusCode.value == _C.BadWaitingForInitialData

        go(work)


def test_a_change_of_the_configuration_ends_no_session() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen:
                await seen.watch(TEMPERATURE, "acme/prensa-01/db500/ciclos")
                await seen.until(lambda: len(seen.changes) == 2)
                seen.changes.clear()
                changed = plc()
                group = changed["groups"][0]
                group["fields"] = [
                    {"name": "temperatura", "type": "REAL", "unit": "bar"},
                    {"name": "pressao", "type": "INT"},
                ]
                rendered = json.loads(r.server.file.read_text())
                rendered["plcs"] = [changed, plc("forno-02", "beta")]
                r.server.configure(rendered)
                gone = ("acme/prensa-01/db500/ciclos", None, "BadNodeIdUnknown")
                await seen.until(lambda: gone in seen.changes)
                fill(r, 2, temperatura=83.5, pressao=4)
                await seen.until(lambda: (TEMPERATURE, 83.5, "Good") in seen.changes)
                tree = await seen.tree()
                assert "beta/forno-02/db500/temperatura" in tree
                assert "acme/prensa-01/db500/ciclos" not in tree
                assert (await seen.read("acme/prensa-01/db500/pressao")).Value.Value == 4
                unit = await seen.node(f"{TEMPERATURE}/EngineeringUnits").read_value()
                assert unit.DisplayName.Text == "bar"

        go(work)
        assert r.server.process.poll() is None


def test_old_rows_do_not_come_after_new_ones() -> None:
    """A replay beside live rows, and rows that come again."""
    with rig() as r:
        epoch = 1_764_000_000_000
        r.peer.add(3, bodies=[
            body(50, {"temperatura": 50.0}, epoch=epoch),
            body(7, {"temperatura": 7.0}, epoch=epoch),
            body(60, {"temperatura": 60.0}, epoch=epoch - 1),
        ])  # fmt: skip
        r.peer.wait_done(5)

        async def work() -> None:
            async with r.client() as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 50.0
                r.peer.add(1, bodies=[body(1, {"temperatura": 1.0}, epoch=epoch + 1)])
                r.peer.wait_done(5)
                await asyncio.sleep(0.05)
                assert (await seen.read(TEMPERATURE)).Value.Value == 1.0

        go(work)


def test_kill_and_restart() -> None:
    """Values that do not change again are there after it; both clients come back by themselves."""
    with run_folder() as run:
        port = free_port()
        own = client_certificate(run / "client")
        trust(run, own)
        config = opcua_config(run, port, users=[user(run, "ana", "segredo")])
        still = "acme/prensa-01/db500/ciclos"
        with DispatchPeer(run, "scada") as peer:
            server = Service(config)
            r = Rig(run, port, peer, server, own)
            account = {"user": "ana", "password": "segredo"}

            async def work(other: NodeClient) -> None:
                async with r.client(auto_reconnect=True) as seen:
                    await seen.watch(TEMPERATURE, still)
                    await seen.until(lambda: len(seen.changes) == 2)
                    server.kill()
                    with service(config) as again:
                        await asyncio.to_thread(
                            until, lambda: again.said("connected"), 20, again.stderr
                        )
                        async with r.client() as fresh:
                            for path, value in ((TEMPERATURE, 82.5), (still, 1_234)):
                                found = await fresh.read(path)
                                assert (found.Value.Value, found.StatusCode.name) == (value, "Good")
                        r.peer.add(1, bodies=[body(3, {"temperatura": 83.5, "ciclos": 1_234})])
                        await seen.until(lambda: (TEMPERATURE, 83.5, "Good") in seen.changes, 30)
                        wanted = {"path": TEMPERATURE, "value": 83.5, "status": "Good"}
                        await asyncio.to_thread(
                            until,
                            lambda: wanted.items() <= other.newest(TEMPERATURE).items(),
                            40,
                            other.shown,
                        )
                        assert again.terminate() == 0

            try:
                until(lambda: server.said("connected"), 60, server.stderr)
                fill(r, 1, ciclos=1_234)
                peer.add(1, bodies=[body(2, {"temperatura": 82.5, "ciclos": 1_234})])
                with NodeClient(port, run, own, [TEMPERATURE, still], **account) as other:
                    until(lambda: other.newest(still).get("value") == 1_234, 15, other.shown)
                    peer.wait_done(5)
                    asyncio.run(work(other))
            finally:
                server.end()


def test_a_port_that_is_taken() -> None:
    """Said, and tried again; rows do not wait for it."""
    with run_folder() as run, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        config = opcua_config(run, port, users=[user(run, "ana", "segredo")])
        with DispatchPeer(run, "scada") as peer, service(config) as server:
            until(lambda: server.said("cannot serve"), 15, server.stderr)
            peer.add(1_000)
            peer.wait_done(10)
            holder.close()
            until(lambda: server.said("connected"), 60, server.stderr)
            assert server.terminate() == 0
