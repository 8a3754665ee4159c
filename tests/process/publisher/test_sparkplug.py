"""The Sparkplug output with a real Mosquitto, judged as a host by a decoder that is not ours."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bus.frames import GAP_ROW, Heartbeat
from services.runtime.clock import now_ms
from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.procs import service
from tests.kit.publisher_rig import PLC, run_folder
from tests.kit.sparkplug import (
    FIELDS,
    HostApplication,
    decode,
    plc,
    sparkplug_config,
)
from tests.kit.sparkplug_judge import Judge, properties

PRENSA = "prensa-01"


def message(seq: int, epoch: int, values: dict[str, Any], **more: Any) -> bytes:
    """A reader's message of the group ``db500``."""
    head = {"v": 1, "site": "planta-sp", "locatario_id": "acme", "plc_id": PRENSA, "ip": "10.0.0.1"}
    mine = {"group": "db500", "ts": now_ms(), "epoch": epoch, "seq": seq, "quality": "good"}
    return orjson.dumps({**head, **mine, "latency_ms": 1.0, "values": values, **more})


@pytest.mark.parametrize("version", [5, "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_session_from_birth_to_goodbye(version: object, qos: int) -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, version=version, qos=qos)) as publisher,
    ):
        host.wait("DBIRTH")
        peer.add(600)
        peer.add(1, kind=GAP_ROW)
        peer.wait_done(10)
        host.wait("DDATA", 601)
        assert publisher.terminate() == 0
        # MQTT 5 asks for the will, too; 3.1.1 cannot.
        host.wait("NDEATH", 2 if version == 5 else 1)
        judge = Judge(qos=qos)
        judge.hear(host.heard)
        assert not judge.missing(peer.rows, peer.refused)
        assert len(judge.delivered) == 600, "a message came twice"
        for row in peer.rows[:-1]:
            want = orjson.loads(row[7])["values"]
            read = {r.name: r.value for r in judge.readings[PRENSA, row[5], row[6]]}
            assert read == {f"db500/{k}": v for k, v in want.items()}
            assert {r.ts_ms for r in judge.readings[PRENSA, row[5], row[6]]} == {row[4]}
        assert [g["first_seq"] for g in judge.gaps] == [601]
        assert not any(r.historical for r in judge.readings[judge.delivered[-1]])
        units = {m["name"]: properties(m).get("engUnit") for m in judge.births[0]["metrics"]}
        assert units["db500/temperatura"] == "°C"
        assert [h.kind for h in host.heard[:2]] == ["NBIRTH", "DBIRTH"]


TYPES: list[tuple[str, Any, str, Any]] = [
    # S7 type, value in the message, Sparkplug's datatype, value as read
    ("BOOL", True, "Boolean", True),
    ("SINT", -128, "Int8", -128),
    ("INT", -32_768, "Int16", -32_768),
    ("DINT", -(2**31), "Int32", -(2**31)),
    ("LINT", str(-(2**63)), "Int64", str(-(2**63))),
    ("LINT", 5, "Int64", "5"),
    ("USINT", 255, "UInt8", 255),
    ("UINT", 65_535, "UInt16", 65_535),
    ("UDINT", 2**32 - 1, "UInt64", str(2**32 - 1)),
    ("ULINT", str(2**64 - 1), "UInt64", str(2**64 - 1)),
    ("BYTE", 171, "UInt8", 171),
    ("WORD", 43_981, "UInt16", 43_981),
    ("DWORD", 2**31, "UInt64", str(2**31)),
    ("LWORD", str(2**63), "UInt64", str(2**63)),
    ("REAL", 0.1, "Float", 0.10000000149011612),
    ("LREAL", 1e300, "Double", 1e300),
    ("TIME", -1, "Int32", -1),
    ("LTIME", 10**15, "Int64", str(10**15)),
    ("S5TIME", 9_990_000, "Int32", 9_990_000),
    ("COUNTER", 999, "UInt16", 999),
    ("STRING[20]", "Óleo ç", "String", "Óleo ç"),
    ("WSTRING[20]", "温度\u0000", "String", "温度\u0000"),
    ("CHAR", "x", "String", "x"),
    ("DATE", "2026-11-30", "String", "2026-11-30"),
    ("TOD", "01:02:03.400", "String", "01:02:03.400"),
    # 23:59 of São Paulo is the next day's 02:59 UTC.
    ("DTL", "2026-11-29T23:59:58.123456789", "DateTime", "1796007598123"),
    ("DT", "1990-01-01T00:00:00", "DateTime", "631159200000"),
    ("LDT", "2026-11-30T00:00:00", "DateTime", "1796007600000"),
]


def test_every_type_is_read_right() -> None:
    fields = [
        {"name": f"f{i:02d}", "type": t, "unit": "", "scaled": False}
        for i, (t, _, _, _) in enumerate(TYPES)
    ]
    fields += [
        {"name": "escala", "type": "INT", "unit": "bar", "scaled": True},
        {"name": "lista", "type": "INT[1..3]", "unit": "", "scaled": False},
        {"name": "mesa", "type": "BOOL[0..1,0..1]", "unit": "", "scaled": False},
    ]
    sent: dict[str, Any] = {f"f{i:02d}": v for i, (_, v, _, _) in enumerate(TYPES)}
    sent |= {"escala": 4, "lista": [1, -2, 3], "mesa": [[True, False], [False, True]]}
    known = plc(fields, zone="America/Sao_Paulo")
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, [known])),
    ):
        host.wait("DBIRTH")
        peer.add(1, bodies=[message(1, peer.epoch, sent)])
        peer.wait_done(5)
        host.wait("DDATA")
        host.rebirth()
        host.wait("DBIRTH", 2)
        judge = Judge()
        judge.hear(host.heard)
        types = {m["name"]: m["type"] for m in judge.births[0]["metrics"]}
        read = {r.name: r.value for r in judge.readings[PRENSA, peer.epoch, 1]}
        for i, (_, _, datatype, value) in enumerate(TYPES):
            assert types[f"db500/f{i:02d}"] == datatype
            assert read[f"db500/f{i:02d}"] == value, TYPES[i]
            assert judge.current[f"{PRENSA}/db500/f{i:02d}"] == value, "in the second birth"
        assert (types["db500/escala"], read["db500/escala"]) == ("Double", 4)
        assert [read[f"db500/lista.{i}"] for i in range(3)] == [1, -2, 3]
        assert read["db500/mesa.0.0"] is read["db500/mesa.1.1"] is True
        assert len(read) == len(TYPES) + 1 + 3 + 4


def test_what_is_not_good_is_null_or_stale_with_its_reason() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)),
    ):
        host.wait("DBIRTH")
        e, good = peer.epoch, {"n": 1, "temperatura": 1.5, "rodando": True}
        peer.add(4, bodies=[
            message(1, e, good),
            message(2, e, {"n": 2, "rodando": True}, bad={"temperatura": "nan"}),
            message(3, e, good, quality="uncertain", bad={"*": "cpu_stop"}),
            message(4, e, good),
        ])  # fmt: skip
        peer.wait_done(5)
        host.wait("DDATA", 4)
        judge = Judge()
        judge.hear(host.heard)

        def read(seq: int, name: str) -> tuple[Any, int | None, str]:
            found = {r.name: r for r in judge.readings[PRENSA, e, seq]}[f"db500/{name}"]
            return found.value, found.quality, found.reason

        assert read(1, "temperatura") == (1.5, 192, ""), "known for the first time: said once"
        assert read(2, "temperatura") == (None, 0, "nan")
        assert read(2, "n") == (2, None, "")
        assert read(3, "temperatura") == (1.5, 500, "cpu_stop")
        assert read(3, "n") == (1, 500, "cpu_stop")
        assert read(4, "n") == (1, 192, "")
        never = {m["name"]: m for m in judge.births[0]["metrics"]}["db500/n"]
        assert never["wire"]["is_null"]
        assert properties(never)["Quality"] == 500, "nothing is known yet"


def test_a_plc_that_is_offline_dies_and_is_born_again() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, [plc(machines=["m01", "m02"])])),
    ):
        host.wait("DBIRTH")
        e = peer.epoch
        gone = {"quality": "bad", "bad": {"*": "plc_offline"}}
        peer.add(3, bodies=[
            message(1, e, {"n": 7}, machine="m01"),
            message(2, e, {}, machine="m01", **gone),
            message(3, e, {}, machine="m02", **gone),
        ])  # fmt: skip
        host.wait("DDEATH")
        assert host.count("DDATA") == 3
        peer.add(1, bodies=[message(4, e, {"n": 8}, machine="m01")])
        host.wait("DDATA", 4)
        judge = Judge()
        judge.hear(host.heard)
        assert [h.kind for h in host.heard] == [
            "NBIRTH", "DBIRTH", "DDATA", "DDATA", "DDATA", "DDEATH", "DBIRTH", "DDATA"
        ]  # fmt: skip
        assert judge.current[f"{PRENSA}/db500/m01/n"] == 8
        assert judge.current[f"{PRENSA}/db500/m02/n"] is None
        # A reader that is dead says nothing itself.
        beat = Heartbeat(PRENSA, "acme", "10.0.0.1", now_ms(), 0.2, "online")
        peer.beat(beat)
        host.wait("DDEATH", 2, 15)


def test_rebirth_on_command_only() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)) as publisher,
    ):
        host.wait("DBIRTH")
        peer.add(300)
        host.wait("DDATA", 300)
        host.rebirth(b"\xff\xff no payload")
        host.rebirth(b"")
        host.rebirth()
        host.wait("DBIRTH", 2)
        peer.add(10)
        host.wait("DDATA", 310)
        judge = Judge()
        judge.hear(host.heard)
        assert host.count("NBIRTH") == 2
        publisher.wait_said("asks 127.0.0.1 for births")
        again = {m["name"]: m["value"] for m in judge.births[1]["metrics"]}
        assert again["db500/n"] == 300, "current values"
        publisher.wait_said("bad_command")
        assert not judge.missing(peer.rows, {})


def test_another_configuration_is_another_birth_and_loses_nothing() -> None:
    """Also a row of the old one, whose field is gone or has another type now, arrives."""
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)) as publisher,
    ):
        host.wait("DBIRTH")
        peer.add(1, bodies=[message(1, peer.epoch, {"n": 1, "temperatura": 2.5})])
        host.wait("DDATA")
        fields = [{**FIELDS[0], "type": "BOOL"}, FIELDS[1]]
        publisher.configure(sparkplug_config(run, broker.port, [plc(fields)]))
        host.wait("NBIRTH", 2)
        old = message(2, peer.epoch, {"n": 2, "temperatura": 3.5, "rodando": True})
        peer.add(1, bodies=[old])
        peer.add(1, plc="removida", bodies=[message(1, peer.epoch, {"x": "y"}, plc_id="removida")])
        peer.wait_done(5)
        host.wait("DDATA", 3)
        publisher.configure(sparkplug_config(run, broker.port, [plc(fields[:1])]))
        host.wait("DDEATH")
        peer.add(1, bodies=[message(3, peer.epoch, {"n": True})])
        host.wait("DDATA", 4)
        judge = Judge()
        judge.hear(host.heard)
        assert judge.alive == {PRENSA}
        read = {r.name: r.value for r in judge.readings[PRENSA, peer.epoch, 2]}
        assert read == {"db500/n:Double": 2, "db500/temperatura": 3.5, "db500/rodando": True}
        read = {r.name: r.value for r in judge.readings["removida", peer.epoch, 1]}
        assert read == {"db500/x": "y"}
        aliases = [{m["name"]: m["alias"] for m in b["metrics"]} for b in judge.births]
        assert aliases[0]["db500/temperatura"] == aliases[1]["db500/temperatura"]


def test_what_is_no_message_is_a_dead_letter() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)),
    ):
        e = peer.epoch
        wrong = [
            b"{",
            b"[]",
            b'{"ts":1}',
            message(4, e, {"n": 1}, ts=-1),
            message(5, e, {}, ts=2**63),
        ]
        wrong += [message(6, e, {}, bad=["n"])]
        peer.add(7, bodies=[*wrong, message(7, e, {"n": 4}, bad={"*": None})])
        peer.wait_done(5)
        assert sorted(peer.refused) == [1, 2, 3, 4, 5, 6]
        assert all(reason.startswith("no message of plc-edge") for reason in peer.refused.values())
        host.wait("DDATA")


def test_what_only_history_told_becomes_current() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(200)
        with service(sparkplug_config(run, broker.port)):
            peer.wait_done(10)
            host.wait("DDATA", 201)
            judge = Judge()
            judge.hear(host.heard)
            assert all(r.historical for rs in judge.readings.values() for r in rs)
            assert judge.current[f"{PRENSA}/db500/n"] == 200
            assert judge.quality[f"{PRENSA}/db500/n"] == 192
            last = decode(host.heard)[-1]["metrics"]
            assert {int(m["timestamp"]) for m in last} == {peer.rows[-1][4]}, "of its reading"


def test_two_tenants_are_two_edge_nodes() -> None:
    other = plc(id="forno-02", locatario="outra")
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe("spBv1.0/#") as seen,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, [plc(), other])),
    ):
        peer.add(3)
        peer.add(3, plc="forno-02", locatario="outra")
        peer.wait_done(5)
        until(lambda: len(seen.messages) >= 10, 5, "all messages")
        topics = {t for t, *_ in seen.messages}
        assert "spBv1.0/acme/DDATA/planta-sp/prensa-01" in topics
        assert "spBv1.0/outra/DDATA/planta-sp/forno-02" in topics
        assert "spBv1.0/acme/DBIRTH/planta-sp/forno-02" not in topics
        assert PLC["id"] == PRENSA
