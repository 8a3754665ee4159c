"""What a CPU's answer says of its program: asked of the emulator, and answers it never gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from s7commplus import server

from services.protocols.s7plus.cpu import Cpu
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import CPUState, SymbolCpu, Var


def asked(monkeypatch: pytest.MonkeyPatch, *, number: int, folder: Path) -> str:
    """What ``Cpu.state`` makes of a number that the CPU tells as its operating state."""
    monkeypatch.setattr(server, "OPERATING_STATE_STOP_OBSERVED", number)
    plc, port = SymbolCpu({"Prensa": [Var("ciclos", "DINT")]}, version=1), free_port()
    plc.start("127.0.0.1", port)
    plc.cpu_state = CPUState.STOP
    cpu = Cpu("127.0.0.1", port, {"tls": "off", "folder": str(folder)}, 2.0)
    try:
        return cpu.state()
    finally:
        cpu.close()


@pytest.mark.parametrize(
    ("number", "state"),
    # Of SZL 0x0424: 8 RUN, 4 STOP, 6 STARTUP, 10 HOLD, 0 nothing.
    [(8, "RUN"), (4, "STOP"), (6, "STOP"), (10, "STOP"), (0, "UNKNOWN")],
)
def test_a_program_that_does_not_run_gives_frozen_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, state: str
) -> None:
    assert asked(monkeypatch, number=number, folder=tmp_path) == state
