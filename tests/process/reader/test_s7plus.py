"""A reader of ``protocol: s7plus`` as a process: values, and what is told where there are none."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit.common import free_port
from tests.kit.reader_rig import ReaderRig
from tests.kit.s7plus_cpu import CPUState, SymbolCpu, Var, certificate

BLOCKS = {
    "Prensa 1": [
        Var("ciclos", "DINT"),
        Var("total", "LINT"),
        Var("temperatura", "REAL"),
        Var("posição", "LREAL"),
        Var("receita", "WSTRING[8]"),
        Var("início", "DTL"),
        Var("eixo", members=[Var("rpm", "INT"), Var("pronto", "BOOL")], dims=((1, 2),)),
        Var("tempos", "TIME[0..2]"),
        Var("passo", "S5TIME"),
    ]
}
FIELDS = [
    {"name": "ciclos", "symbol": '"Prensa 1".ciclos', "type": "DINT"},
    {"name": "total", "symbol": '"Prensa 1".total', "type": "LINT"},
    {"name": "temperatura", "symbol": '"Prensa 1".temperatura', "type": "REAL"},
    {"name": "posicao", "symbol": '"Prensa 1".posição', "type": "LREAL"},
    {"name": "receita", "symbol": '"Prensa 1".receita', "type": "WSTRING[8]"},
    {"name": "inicio", "symbol": '"Prensa 1".início', "type": "DTL"},
    {"name": "rpm", "symbol": '"Prensa 1".eixo[2].rpm', "type": "INT"},
    {"name": "pronto", "symbol": '"Prensa 1".eixo[2].pronto', "type": "BOOL"},
    {"name": "tempos", "symbol": '"Prensa 1".tempos', "type": "TIME[0..2]"},
    {"name": "passo", "symbol": '"Prensa 1".passo', "type": "S5TIME"},
    {"name": "nivel", "symbol": "Nivel", "type": "WORD"},
]
TAGS = [Var("Nivel", "WORD")]


def fill(cpu: SymbolCpu) -> None:
    for symbol, raw in {
        "ciclos": "fffffff9", "total": "8000000000000001", "temperatura": "3df5c28f",
        "posição": "3fb999999999999a", "receita": "0008000303a9007300740000000000000000000000",
        "início": "07e4031803162c172af99640", "eixo[2].rpm": "8000", "eixo[2].pronto": "01",
        "tempos": "0000000100000002ffffffff", "passo": "3372",
    }.items():  # fmt: skip
        content = bytes.fromhex(raw)
        cpu.set(f"Prensa 1.{symbol}", content[:20] if symbol == "receita" else content)
    cpu.set("Nivel", b"\x12\x34")


VALUES = {
    "ciclos": -7, "total": "-9223372036854775807", "temperatura": 0.12, "posicao": 0.1,
    "receita": "Ωst", "inicio": "2020-03-24T22:44:23.721", "rpm": -32_768, "pronto": True,
    "tempos": [1, 2, -1], "passo": 3_720_000, "nivel": 0x1234,
}  # fmt: skip


@pytest.fixture(params=["V1", "V2 and TLS"])
def cpu(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SymbolCpu, int]:
    has_tls = request.param != "V1"
    plc = SymbolCpu(BLOCKS, version=2 if has_tls else 1, tags=TAGS)
    fill(plc)
    port = free_port()
    start(plc, port, tmp_path if has_tls else None)
    return plc, port


def start(plc: SymbolCpu, port: int, folder: Path | None) -> None:
    if folder is None:
        plc.start("127.0.0.1", port)
    else:
        cert, key = certificate(folder)
        plc.start("127.0.0.1", port, use_tls=True, tls_cert=str(cert), tls_key=str(key))


def config(port: int, **more: Any) -> dict[str, Any]:
    group = {"name": "tudo", "scan": "50ms", "publish": "always", "fields": FIELDS}
    return {"id": "prensa-01", "protocol": "s7plus", "host": "127.0.0.1", "port": port,
            "program_check": "1s", "groups": [group], **more}  # fmt: skip


def test_every_value_reaches_the_store(cpu: tuple[SymbolCpu, int]) -> None:
    plc, port = cpu
    with ReaderRig(config(port)) as rig:
        rig.wait(lambda: rig.messages, 10)
        first = rig.messages[0]
        assert first["values"] == VALUES
        assert first["quality"] == "good"
        assert "bad" not in first
        rig.wait(lambda: len(rig.messages) > 10, 10)
        assert [m["seq"] for m in rig.messages[:10]] == list(range(1, 11))
        plc.set("Prensa 1.ciclos", struct.pack(">i", 5))
        rig.wait(lambda: rig.messages[-1]["values"]["ciclos"] == 5, 5)
        rig.wait(lambda: rig.beats and rig.beats[-1].status == "online", 5)


def test_what_is_refused_is_named_and_the_rest_comes(cpu: tuple[SymbolCpu, int]) -> None:
    plc, port = cpu
    wrong = [{"name": "falta", "symbol": '"Prensa 1".nada', "type": "INT"},
             {"name": "outro", "symbol": '"Prensa 1".total', "type": "ULINT"}]  # fmt: skip
    given = config(port)
    given["groups"][0]["fields"] = FIELDS + wrong
    plc.refuse_symbol("Prensa 1.ciclos", 0x8009AB0000E4FFE4)
    with ReaderRig(given) as rig:
        rig.wait(lambda: rig.messages, 10)
        bad = {"ciclos": "refused_ffe4", "falta": "unknown_symbol", "outro": "type_differs"}
        assert rig.messages[0]["bad"] == bad
        assert rig.messages[0]["values"] == {k: v for k, v in VALUES.items() if k != "ciclos"}
        rig.wait(lambda: rig.beats and rig.beats[-1].status == "degraded", 5)
        told = [e for e in rig.events if e.code == "tags_refused"]
        assert '"Prensa 1".total is LINT in the CPU, and ULINT' in told[0].text
        plc.refuse_symbol("Prensa 1.ciclos", 0)
        rig.wait(lambda: "ciclos" in rig.messages[-1]["values"], 5)


def test_a_cpu_in_stop_gives_frozen_values(cpu: tuple[SymbolCpu, int]) -> None:
    plc, port = cpu
    with ReaderRig(config(port)) as rig:
        rig.wait(lambda: rig.messages, 10)
        plc.cpu_state = CPUState.STOP
        rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "cpu_stop"}, 10)
        assert rig.messages[-1]["quality"] == "uncertain"
        plc.cpu_state = CPUState.RUN
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 10)


def test_it_comes_back_after_the_cpu(cpu: tuple[SymbolCpu, int], tmp_path: Path) -> None:
    plc, port = cpu
    with ReaderRig(config(port)) as rig:
        rig.wait(lambda: rig.messages, 10)
        plc.stop()
        rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "plc_offline"}, 15)
        again = SymbolCpu(BLOCKS, version=plc._protocol_version, tags=TAGS)
        fill(again)
        folder = tmp_path / "again"
        folder.mkdir()
        start(again, port, folder if plc._use_tls else None)
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 15)
        seqs = [m["seq"] for m in rig.messages]
        assert seqs == list(range(1, len(seqs) + 1))
        again.stop()


def test_a_download_moves_variables_and_no_value_takes_anothers_name(
    cpu: tuple[SymbolCpu, int],
) -> None:
    """After it the addresses of two variables of one type are each other's."""
    plc, port = cpu
    fields = [{"name": n, "symbol": f"B.{n}", "type": "INT"} for n in ("a", "b")]
    given = config(port)
    given["groups"][0]["fields"] = fields
    plc.declare({"B": [Var("a", "INT"), Var("b", "INT")]})
    plc.set("B.a", b"\0\1")
    plc.set("B.b", b"\0\2")
    with ReaderRig(given) as rig:
        rig.wait(lambda: rig.messages, 10)
        assert rig.messages[-1]["values"] == {"a": 1, "b": 2}
        plc.declare({"B": [Var("b", "INT"), Var("a", "INT")]})
        plc.set("B.a", b"\0\3")
        plc.set("B.b", b"\0\4")
        rig.wait(lambda: rig.messages[-1]["values"] == {"a": 3, "b": 4}, 15)
        assert any(e.code == "program_changed" for e in rig.events)
        plc.declare({"B": [Var("b", "INT")]})
        rig.wait(lambda: rig.messages[-1].get("bad") == {"a": "unknown_symbol"}, 15)


def test_a_download_moves_a_plc_tag_to_the_place_of_another_type(
    cpu: tuple[SymbolCpu, int],
) -> None:
    """No block tells of it, only the tag's type."""
    plc, port = cpu
    given = config(port)
    given["groups"][0]["fields"] = [{"name": "nivel", "symbol": "Nivel", "type": "WORD"}]
    with ReaderRig(given) as rig:
        rig.wait(lambda: rig.messages, 10)
        plc.declare({}, [Var("Vazao", "INT"), Var("Nivel", "WORD")])
        plc.set("Nivel", b"\x43\x21")
        rig.wait(lambda: rig.messages[-1]["values"] == {"nivel": 0x4321}, 15)
        assert any(m.get("bad") == {"nivel": "type_differs"} for m in rig.messages)


def test_a_refused_password_is_told_and_never_shown(tmp_path: Path) -> None:
    plc = SymbolCpu(BLOCKS, version=2, tags=TAGS, level=4, users={("ana", "segredo-8"): 2})
    fill(plc)
    port = free_port()
    start(plc, port, tmp_path)
    secret = tmp_path / "plc.pw"
    secret.write_text("errado-9\n")
    given = config(port, username="ana", password_file=str(secret))
    with ReaderRig(given) as rig:
        assert "errado-9" not in json.dumps(rig.config)
        rig.wait(lambda: rig.beats and (rig.beats[-1].failure or {}).get("attempts", 0) > 0, 10)
        failure = rig.beats[-1].failure or {}
        assert failure["code"] == "password_refused"
        assert "Users and roles" in failure["message"]
        assert "'ana'" in failure["message"]
        assert "errado-9" not in rig.service.stderr() + str(rig.beats) + str(rig.events)
        assert "errado-9" not in str(psutil.Process(rig.service.pid).cmdline())
    secret.write_text("segredo-8\n")
    with ReaderRig(given) as rig:
        rig.wait(lambda: rig.messages, 10)
        assert rig.messages[0]["values"] == VALUES
        assert "segredo-8" not in rig.service.stderr() + str(rig.events)


def test_a_scan_of_many_requests_may_take_longer_than_one_may() -> None:
    plc = SymbolCpu({"B": [Var(f"v{n}", "INT") for n in range(200)]})
    port = free_port()
    plc.start("127.0.0.1", port)
    fields = [{"name": f"v{n}", "symbol": f"B.v{n}", "type": "INT"} for n in range(200)]
    given = config(port, timeout="500ms")
    given["groups"][0] |= {"scan": "1s", "fields": fields}
    plc.delay_s = 0.3
    with ReaderRig(given) as rig:
        rig.wait(lambda: len(rig.messages) > 1, 15)
        assert [m["quality"] for m in rig.messages[:2]] == ["good", "good"]
        assert rig.messages[1]["latency_ms"] > 1_000
