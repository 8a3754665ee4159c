"""A reader cannot write to a PLC: what it can import holds no write, and its telegrams only ask."""

from __future__ import annotations

import inspect
import subprocess
import sys

from services.s7 import telegram
from services.s7.plan import Extent, make_plan
from tests.kit.common import ROOT

SETUP, READ = 0xF0, 0x04
# S7 functions that change something in a CPU: write, download, start, stop, PI services.
CHANGING = {0x05, 0x1A, 0x1B, 0x1C, 0x28, 0x29}


def function_of(packet: bytes) -> int:
    """The function code of a job: TPKT 4, COTP 3, S7 header 10."""
    assert packet[8] == telegram.JOB
    return packet[17]


def test_every_job_a_reader_can_build_is_setup_or_read() -> None:
    assert function_of(telegram.setup_request(1, 8, 960)) == SETUP
    plan = make_plan([Extent("DB", 1, i * 7, 4) for i in range(300)], 240)
    assert {function_of(t.data) for t in plan.telegrams} == {READ}
    szl = telegram.szl_request(1, 0x0424)
    # Userdata, request, group 4 (CPU functions), subfunction 1 (read SZL).
    assert (szl[8], szl[21], szl[22], szl[23]) == (telegram.USERDATA, 0x11, 0x44, 1)


def test_the_module_that_makes_telegrams_makes_no_others() -> None:
    makers = {
        name
        for name, f in inspect.getmembers(telegram, inspect.isfunction)
        if f.__module__ == telegram.__name__ and name.endswith("_request")
    }
    assert makers == {"connection_request", "setup_request", "read_request", "szl_request"}
    source = inspect.getsource(telegram._pdu) + "".join(
        inspect.getsource(getattr(telegram, name)) for name in makers
    )
    assert not [
        code for code in CHANGING if f"0x{code:02X}" in source or f"bytes(({code}," in source
    ]


def test_a_reader_process_loads_nothing_that_writes() -> None:
    code = (
        "import sys, services.reader.reader, services.protocols.s7.source\n"
        "print(*sorted(m for m in sys.modules if m.startswith(('services.mirror', 'snap7',"
        " 'services.simulator', 'services.cli'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
