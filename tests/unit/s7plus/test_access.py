"""Who may read: TLS, certificates, passwords and users; and what a person is told."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from s7commplus.v1_session_key import handshake

from services.protocols.line import Line
from services.protocols.s7plus.cpu import Cpu
from services.protocols.s7plus.plan import Tag, make_plan, values_of
from services.protocols.s7plus.serve import Serve
from services.runtime.errors import PlcUnavailable
from services.s7.types import parse_type
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import SymbolCpu, Var, certificate

BLOCKS = {"Prensa": [Var("ciclos", "DINT")]}
# Firmware with passwords of access levels, and with users: they answer differently.
LEVELS, USERS = "6ES7 512-1CK01-0AB0;V2.9", "6ES7 512-1CK01-0AB0;V3.1"
LOGINS = {("", "segredo-7"): 3, ("ana", "segredo-8"): 2}


class Plant:
    """CPUs of one test."""

    def __init__(self, folder: Path) -> None:
        self._cert, self._key = certificate(folder)
        self.port = 0
        self.plc: SymbolCpu

    def cpu(self, *, tls: bool = True, **given: Any) -> None:
        plc = self.plc = SymbolCpu(BLOCKS, version=2 if tls else 1, **given)
        self.port = free_port()
        files = {"use_tls": True, "tls_cert": str(self._cert), "tls_key": str(self._key)}
        plc.start("127.0.0.1", self.port, **(files if tls else {}))  # type: ignore[arg-type]

    def open(self, config: Mapping[str, Any]) -> str:
        """What the connection is, or (code: text) why there is none."""
        try:
            cpu = Cpu("127.0.0.1", self.port, config, 2.0)
        except PlcUnavailable as e:
            return f"{e.code}: {e.message}"
        try:
            assert "Prensa" in cpu.blocks()
            return f"{cpu.description} {cpu.fingerprint}"
        finally:
            cpu.close()


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Its CPUs are threads that end with the test's process: to wait for each costs a second."""
    return Plant(tmp_path)


@pytest.mark.parametrize("firmware", [LEVELS, USERS])
def test_complete_protection_needs_a_password(plant: Plant, firmware: str) -> None:
    plant.cpu(level=4, users=LOGINS, firmware=firmware)
    told = plant.open({})
    assert told.startswith("access_denied: 127.0.0.1: the CPU's access level is \"No access")
    page = "Users and roles" if firmware == USERS else "Protection & Security > Access level"
    assert page in told
    assert "hmi access" in plant.open({"password": "segredo-7"})
    refused = plant.open({"password": "errado-9"})
    assert refused.startswith("password_refused: 127.0.0.1: the CPU refuses the password. TIA")
    assert page in refused
    assert "errado-9" not in refused


def test_a_user_is_named(plant: Plant) -> None:
    plant.cpu(level=4, users=LOGINS, firmware=USERS)
    assert "read access" in plant.open({"username": "ana", "password": "segredo-8"})
    for user, password in (("ana", "segredo-7"), ("bia", "segredo-8")):
        refused = plant.open({"username": user, "password": password})
        assert refused.startswith(f"password_refused: 127.0.0.1: the CPU refuses user {user!r}")
        assert password not in refused


def test_a_pinned_certificate_is_the_only_one(plant: Plant) -> None:
    plant.cpu()
    seen = plant.open({}).rsplit(" ", 1)[1]
    assert len(seen) == 64
    assert "TLS" in plant.open({"fingerprint": seen, "tls": "required"})
    other = plant.open({"fingerprint": "00" * 32})
    assert other.startswith("certificate: ")
    assert seen in other
    assert "Connection mechanisms" in other


@pytest.mark.parametrize(
    "config",
    [{"tls": "required"}, {"tls": "auto", "password": "segredo-7"},
     {"tls": "auto", "fingerprint": "00" * 32}],
)  # fmt: skip
def test_no_password_goes_where_there_is_no_tls(plant: Plant, config: dict[str, str]) -> None:
    plant.cpu(tls=False)
    told = plant.open(config)
    assert told.startswith("tls_failed: ")
    assert "Connection mechanisms" in told


def test_old_firmware_is_read_without_tls(plant: Plant) -> None:
    plant.cpu(tls=False)
    assert "no TLS" in plant.open({})
    assert "no TLS" in plant.open({"tls": "off"})


def test_nobody_there(plant: Plant) -> None:
    plant.port = free_port()
    assert plant.open({}) == f"refused: 127.0.0.1:{plant.port}: nobody listens there"


def test_a_session_with_a_key_has_every_frame_signed(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V3 framing, of firmware without TLS. The emulator cannot open what only a CPU's private key
    opens, so both sides are told one key; all else is the library's own path.
    """
    key = bytes(range(48))
    make = handshake.authenticate_session_key
    monkeypatch.setattr(handshake, "authenticate_session_key", lambda *a: (make(*a)[0], key))
    plant.cpu(
        tls=False,
        public_key_fingerprint="00:0448ACCBD5A0BFD2",
        session_challenge=bytes(range(20)),
        session_key=key,
    )
    assert "no TLS" in plant.open({"tls": "off"})
    cpu = Cpu("127.0.0.1", plant.port, {"tls": "off"}, 2.0)
    plan = make_plan(cpu.tree(), [Tag("n", "Prensa.ciclos", parse_type("DINT"))],
                     cpu.qualifier_version)  # fmt: skip
    for n in range(1, 4):
        plant.plc.set("Prensa.ciclos", n.to_bytes(4))
        assert values_of(plan, cpu.read(plan)) == ({"n": n}, {})
    cpu._connection._session_key = bytes(48)
    with pytest.raises(PlcUnavailable):
        cpu.read(plan)


def test_who_had_tls_is_not_read_without(plant: Plant) -> None:
    """Somebody in between who breaks the handshake gets no plain connection."""
    tags = [[Tag("n", "Prensa.ciclos", parse_type("DINT"))]]
    plant.cpu()
    plc = {"port": plant.port, "timeout_s": 2.0, "program_check_s": 10.0}
    serve = Serve(plc, {"tls": "auto"}, tags)

    serve("127.0.0.1", _closing())
    plant.plc.stop()
    plain = SymbolCpu(BLOCKS)
    plain.start("127.0.0.1", plant.port)
    with pytest.raises(PlcUnavailable) as e:
        serve("127.0.0.1", _closing())
    assert e.value.code == "tls_failed"
    Serve(plc, {"tls": "auto"}, tags)("127.0.0.1", _closing())


def _closing() -> Line:
    line = Line(lambda: None)
    threading.Timer(0.3, line.close).start()
    return line
