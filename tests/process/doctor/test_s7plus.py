"""A PLC of ``protocol: s7plus``: what doctor finds, and says to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.cli.doctor_finding import Finding
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import CPUState, SymbolCpu, Var, certificate
from tests.process.doctor.kit import config, fault, findings

BLOCKS = {"Prensa": [Var("ciclos", "DINT"), Var("total", "LINT")]}
FIELDS = [{"name": "ciclos", "symbol": "Prensa.ciclos", "type": "DINT"},
          {"name": "total", "symbol": "Prensa.total", "type": "LINT"}]  # fmt: skip


def look(
    folder: Path, cpu: SymbolCpu, *, fields: list[dict[str, str]] = FIELDS, **plc: Any
) -> list[Finding]:
    cert, key = certificate(folder)
    port = free_port()
    cpu.start("127.0.0.1", port, use_tls=True, tls_cert=str(cert), tls_key=str(key))
    group = {"name": "tudo", "fields": fields}
    given = {"id": "prensa-01", "protocol": "s7plus", "host": "127.0.0.1", "port": port,
             "groups": [group], **plc}  # fmt: skip
    return findings(folder, config(folder, plcs=[given]))


def test_a_good_cpu_that_is_not_pinned(tmp_path: Path) -> None:
    found = look(tmp_path, SymbolCpu(BLOCKS, version=2))
    read = next(f for f in found if f.code == "read")
    assert (read.level, read.subject) == ("ok", "plc prensa-01 group tudo")
    assert "2 fields read" in read.text
    pin = next(f for f in found if f.code == "not_pinned")
    again = look(tmp_path, SymbolCpu(BLOCKS, version=2), fingerprint="00" * 32)
    assert "not the one that is trusted" in fault(again, "certificate").text
    assert "`fingerprint:`" in pin.text


def test_tags_that_are_not_there_and_a_cpu_in_stop(tmp_path: Path) -> None:
    cpu = SymbolCpu(BLOCKS, version=2)
    cpu.cpu_state = CPUState.STOP
    wrong = [*FIELDS, {"name": "x", "symbol": "Prensa.x", "type": "INT"}]
    found = look(tmp_path, cpu, fields=wrong)
    assert "1 of 3 fields have no value: x (unknown_symbol)" in fault(found, "fields_refused").text
    assert "Prensa.x: there is no 'x' in it" in fault(found, "tags_refused").text
    assert any("STOP" in f.text for f in found)


def test_a_password_that_is_missing_or_wrong(tmp_path: Path) -> None:
    users = {("ana", "segredo-8"): 2}
    missing = look(tmp_path, SymbolCpu(BLOCKS, version=2, level=4, users=users))
    assert "Users and roles" in fault(missing, "access_denied").text
    secret = tmp_path / "plc.pw"
    secret.write_text("errado-9")
    plc: dict[str, Any] = {"username": "ana", "password_file": str(secret)}
    refused = look(tmp_path, SymbolCpu(BLOCKS, version=2, level=4, users=users), **plc)
    assert "'ana'" in fault(refused, "password_refused").text
    assert "errado-9" not in str(refused)
