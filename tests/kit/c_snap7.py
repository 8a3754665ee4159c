"""The C snap7 server: an S7 implementation that is not ours and not the client library's own.

It ships inside python-snap7 2.1.0, which is installed into an environment of its own
(``.venv-csnap7``, made once). Each server is a process:

    with CServer({500: image}) as server:
        server.port
        server.read(500)   # what the DB holds now

Seen: it grants PDU 480 at most as asked (up to 960) and the jobs asked for, cuts a request at 20
items and still answers OK, and keeps a DB's size fixed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.common import ROOT, free_ports

VENV = ROOT / ".venv-csnap7"
# Its wheel holds libsnap7.so; 3.x is written in Python.
REQUIREMENT = "python-snap7==2.1.0"

_SERVER = r"""
import ctypes, sys, snap7
from snap7.server import Server
from snap7.type import SrvArea
port, files = int(sys.argv[1]), sys.argv[2:]
server = Server(log=False)
areas = {}
for file in files:
    number = int(file.rpartition("/")[2])
    data = open(file, "rb").read()
    areas[number] = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
    server.register_area(SrvArea.DB, number, areas[number])
server.start(tcp_port=port)
print("READY", flush=True)
for line in sys.stdin:
    verb, number, *rest = line.split()
    area = areas[int(number)]
    if verb == "read":
        print(bytes(area).hex(), flush=True)
    else:
        start, data = int(rest[0]), bytes.fromhex(rest[1])
        ctypes.memmove(ctypes.addressof(area) + start, data, len(data))
        print("ok", flush=True)
server.stop()
"""


def interpreter() -> Path:
    """The environment's Python; makes the environment where it is missing."""
    python = VENV / "bin" / "python"
    ROOT.joinpath(".venv-csnap7.lock").touch()
    with ROOT.joinpath(".venv-csnap7.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not (VENV / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, REQUIREMENT], check=True)
            (VENV / ".ready").touch()
    return python


class CServer:
    """One server on a free port; ``blocks`` maps DB number to its content."""

    def __init__(self, blocks: Mapping[int, bytes], port: int | None = None) -> None:
        self.port = port or free_ports(1)[0]
        self._blocks = blocks

    def __enter__(self) -> Self:
        python = interpreter()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pe")))
            for number, data in self._blocks.items():
                (folder / str(number)).write_bytes(data)
            files = [str(folder / str(number)) for number in self._blocks]
            errors = stack.enter_context((folder / "err").open("w+"))
            self.process = subprocess.Popen(
                [str(python), "-c", _SERVER, str(self.port), *files],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )  # fmt: skip
            stack.callback(self._end)
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line.strip() == "READY", (folder / "err").read_text()
            self._stack = stack.pop_all()
        return self

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _ask(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def read(self, number: int) -> bytes:
        """What a DB holds now."""
        return bytes.fromhex(self._ask(f"read {number}"))

    def write(self, number: int, start: int, data: bytes) -> None:
        """Changes the DB as the PLC's program would."""
        assert self._ask(f"write {number} {start} {data.hex()}") == "ok"
