"""OPC UA servers that are not ours, and PLCs of ``config.yaml`` that read them.

with NodeServer(folder) as server:
    server("set", values=[{"node": "counter", "type": "Int32", "value": 1}])
    plc = opcua_plc(server.port, {"counter": "DINT"})
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.protocols.opcua import connect, security
from tests.kit import java, node
from tests.kit.common import ROOT, free_port, until
from tests.kit.counters import course, in_order
from tests.kit.reader_rig import ReaderRig

URI = "urn:plc-edge:test:plant"
# What both servers hold, its type in a layout, and what must come of it.
EVERY_TYPE: dict[str, tuple[str, Any]] = {
    "Boolean": ("BOOL", True),
    "SByte": ("SINT", -128),
    "Byte": ("USINT", 255),
    "Int16": ("INT", -32768),
    "UInt16": ("UINT", 65535),
    "Int32": ("DINT", -2147483648),
    "UInt32": ("UDINT", 4294967295),
    "Int64": ("LINT", "-9223372036854775808"),
    "UInt64": ("ULINT", "18446744073709551615"),
    "small": ("LINT", 42),
    "Float": ("REAL", 0.1),
    "Double": ("LREAL", 0.1),
    "String": ("WSTRING[254]", "água 高炉 €"),
    "DateTime": ("LDT", "2026-11-30T12:34:56.789"),
    "Guid": ("WSTRING[254]", "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    "ByteString": ("WSTRING[254]", "00ff10"),
    "ints": ("INT[0..2]", [1, -2, 3]),
    "dtl": ("DTL", "2026-11-30T12:34:56.789"),
}


def place(name: str) -> str:
    """A node of either server, as a layout names it."""
    return f"nsu={URI};s={name}"


def opcua_plc(port: int, fields: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A PLC of ``config.yaml``: one group of these nodes. ``group``: keys of the group."""
    group = {"name": "planta", "scan": "200ms", **more.pop("group", {})}
    group["fields"] = [{"name": n, "node": place(n), "type": t} for n, t in fields.items()]
    return {
        "id": "forno-01", "protocol": "opcua", "host": "127.0.0.1", "port": port,
        "timeout": "2s", "groups": [group], **more,
    }  # fmt: skip


def numbers(rig: ReaderRig) -> list[int]:
    """The counter's values in the order of the messages, repeats of a message left out."""
    found = {(m["epoch"], m["seq"]): m["values"].get("counter") for m in list(rig.messages)}
    return [n for _, n in sorted(found.items()) if n is not None]


def untold(rig: ReaderRig, before: int, last: int) -> list[tuple[int, int]]:
    """What a reader has lost of the counter, which went from ``before`` to ``last``, without saying
    so: pairs of numbers between which some are missing, and no message tells of it.
    """
    counter = course(in_order(list(rig.messages)), "counter", before)
    assert not counter.back, counter.back
    return [*counter.untold, *([(counter.last, last)] if counter.last < last else [])]


def trust(rig: ReaderRig) -> None:
    """Confirms what the server shows, as `plc-edge trust` does."""
    found = asyncio.run(connect.endpoints(rig.config["plc"], "127.0.0.1"))
    shown = connect.leaf(connect.choose(found, rig.config["plc"]).ServerCertificate)
    security.trust(rig.site.state, rig.plc["id"], shown)


@contextmanager
def reading(plc: dict[str, Any]) -> Iterator[ReaderRig]:
    """A reader of a server that is trusted, and whose first values are there."""
    rig = ReaderRig(plc)
    trust(rig)
    with rig:
        rig.wait(lambda: rig.messages and rig.messages[-1]["quality"] == "good", 15)
        yield rig


class _Server:
    """A server process that is told what to do on its stdin."""

    def __init__(self, command: list[str], env: Mapping[str, str], port: int) -> None:
        self._command, self._env = command, env
        self.port = port
        self.text: list[str] = []

    def start(self) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            self._command, env={**os.environ, **self._env}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        threading.Thread(target=self._drain, args=(self.process,), daemon=True).start()
        until(self._is_ready, 40, lambda: "\n".join(self.text[-20:]))

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "\n".join(self.text[-20:])
        return any("ready" in line for line in list(self.lines))

    def _drain(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.text.append(line.rstrip())
            self.lines.append(line)

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.kill()


class NodeServer(_Server):
    """node-opcua. ``options``: as tests/kit/opcua_node/server.js takes them. Its certificate lies
    in ``folder`` and is the same after a restart.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        port = options.pop("port", None) or free_port()
        program, packages = node.package(*node.NODE_OPCUA)
        self._certificate = folder / "pki/own/certs/certificate.pem"
        file = ROOT / "tests/kit/opcua_node/server.js"
        given = json.dumps({"port": port, "pki": str(folder), **options})
        env = {"NODE_PATH": str(packages / "node_modules")}
        super().__init__([program, str(file), given], env, port)

    @property
    def fingerprint(self) -> str:
        """Of its certificate, as it would be shown to a technician (SHA-256)."""
        certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        return security.fingerprint(certificate.public_bytes(Encoding.DER))

    def __call__(self, order: str, **given: Any) -> Any:
        """Does one thing; what came of it."""
        seen = len(self.lines)
        self.send(json.dumps({"op": order, **given}))
        answers = lambda: [x for x in self.lines[seen:] if x.startswith(('{"ok"', '{"error"'))]  # noqa: E731
        answer = json.loads(until(answers, 10, lambda: "\n".join(self.text[-20:]))[0])
        assert "error" not in answer, answer
        return answer["ok"]


class MiloServer(_Server):
    """Eclipse Milo. Every start makes a new certificate."""

    def __init__(self, port: int | None = None) -> None:
        folder = ROOT / "tests/kit/opcua_milo"
        program, path = java.jars(folder / "pom.xml")
        flags = ["-XX:+UseSerialGC", "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        port = port or free_port()
        command = [program, *flags, "-cp", path, str(folder / "Server.java"), str(port)]
        super().__init__(command, {}, port)
