"""A subscriber that counts, in a process of its own: persistent session, QoS 1, MQTT 5.

    with CountingClient(broker.port, "counter", ["plc/+/+"]) as counter:
        counter.report()["messages"]

Bare bytes instead of paho: that takes 50 µs a message and more, and ten thousand a second would
measure the subscriber.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kit.arrivals import Arrivals
from tests.kit.common import ROOT

SESSION_S = 3_600
KEEPALIVE_S = 30
PASSWORD = "COUNTING_PASSWORD"  # the variable's name
# Mosquitto takes it instead of its own max_inflight_messages.
RECEIVE_MAXIMUM = 65_535


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2) + data


def _packet(head: int, body: bytes) -> bytes:
    size, out = len(body), bytearray((head,))
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + body


def _packets(buffer: bytearray) -> Iterator[tuple[int, int, int]]:
    """(first byte, where its body begins and ends) of each whole packet; takes them away after."""
    at, end = 0, len(buffer)
    try:
        while end - at >= 2:
            size, shift, start = 0, 0, at + 1
            while start < end:
                byte = buffer[start]
                start += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            else:
                return
            if start + size > end:
                return
            head, at = buffer[at], start + size
            yield head, start, at
    finally:
        del buffer[:at]


class _Client:
    def __init__(self, args: argparse.Namespace) -> None:
        self.arrivals = Arrivals(args.points)
        sock = socket.create_connection(("127.0.0.1", args.port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if args.ca:
            context = ssl.create_default_context(cafile=args.ca)
            sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
        self.sock = sock
        self._buffer = bytearray()
        login = _text(args.username) + _text(os.environ[PASSWORD]) if args.username else b""
        flags = 0xC0 if args.username else 0
        properties = b"\x11" + SESSION_S.to_bytes(4) + b"\x21" + args.receive.to_bytes(2)
        body = _text("MQTT") + bytes((5, flags)) + KEEPALIVE_S.to_bytes(2)
        body += bytes((len(properties),)) + properties + _text(args.client_id) + login
        sock.sendall(_packet(0x10, body))
        self._await(2)
        # QoS 1, and nothing that was retained before.
        topics = b"".join(_text(topic) + b"\x21" for topic in args.topics)
        sock.sendall(_packet(0x82, b"\0\1\0" + topics))
        self._await(9)
        self._ping_s = time.monotonic() + KEEPALIVE_S / 2

    def _await(self, kind: int) -> None:
        while True:
            self._buffer += self._receive()
            for head, start, end in _packets(self._buffer):
                if head >> 4 == kind:
                    body = bytes(self._buffer[start:end])
                    code = body[1] if kind == 2 else max(body[3:])
                    assert code < 0x80, f"the broker refuses: 0x{code:02x}"
                    return

    def _receive(self) -> bytes:
        data = self.sock.recv(262_144)
        assert data, "the broker closed the connection"
        return data

    def serve(self) -> None:
        """Until stdin says ``end`` or closes."""
        sources = [self.sock, sys.stdin]
        while True:
            ready, _, _ = select.select(sources, [], [], 1.0)
            if self.sock in ready:
                self._read()
            if sys.stdin in ready:
                word, _, rest = sys.stdin.readline().strip().partition(" ")
                if word == "report":
                    print(json.dumps(self.arrivals.report()), flush=True)
                elif word == "dump":
                    self.arrivals.dump(Path(rest))
                    print("{}", flush=True)
                else:
                    self.sock.sendall(b"\xe0\x00")
                    return
            if time.monotonic() > self._ping_s:
                self._ping_s = time.monotonic() + KEEPALIVE_S / 2
                self.sock.sendall(b"\xc0\x00")

    def _read(self) -> None:
        self._buffer += self._receive()
        while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            self._buffer += self._receive()
        buffer, acks, now_ms = self._buffer, bytearray(), time.time_ns() // 1_000_000
        take = self.arrivals.take
        for head, start, end in _packets(buffer):
            assert head >> 4 in (3, 13), f"packet type {head >> 4}"
            if head >> 4 == 13:
                continue
            at = start + 2 + (buffer[start] << 8 | buffer[start + 1])
            topic = buffer[start + 2 : at].decode()
            if head & 0x06:
                acks += b"\x40\x02" + buffer[at : at + 2]
                at += 2
            size = buffer[at]
            at += 1
            if size > 0x7F:
                size = size & 0x7F | buffer[at] << 7
                at += 1
            take(topic, bytes(buffer[at + size : end]), now_ms)
        # After they were counted.
        self.sock.sendall(acks)


class CountingClient:
    """Its process. ``topics`` may be shared (``$share/group/plc/+/+``)."""

    def __init__(
        self,
        port: int,
        client_id: str,
        topics: Sequence[str],
        *,
        ca: Path | None = None,
        login: tuple[str, str] | None = None,
        points: bool = False,
        receive_maximum: int = RECEIVE_MAXIMUM,
    ) -> None:
        command = [sys.executable, "-P", "-m", "tests.kit.counting_client", str(port), client_id]
        command += [*topics, *(["--points"] if points else [])]
        command += ["--receive", str(receive_maximum), *(["--ca", str(ca)] if ca else [])]
        command += ["--username", login[0]] if login else []
        self._command = command
        self._env = {"PYTHONPATH": str(ROOT), PASSWORD: login[1] if login else ""}

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=self._env,
        )  # fmt: skip
        assert self._line() == "READY", "the subscriber did not subscribe"
        return self

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, "the subscriber does not answer"
        return self.process.stdout.readline().strip()

    def _ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def report(self) -> dict[str, Any]:
        """As ``Arrivals.report``."""
        found: dict[str, Any] = self._ask("report")
        return found

    def dump(self, file: Path) -> Path:
        """Writes what came."""
        self._ask(f"dump {file}")
        return file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()  # it leaves
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def main() -> None:
    """Says READY when it has subscribed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("client_id")
    parser.add_argument("topics", nargs="+")
    for option in ("--ca", "--username"):
        parser.add_argument(option)
    parser.add_argument("--receive", type=int)
    parser.add_argument("--points", action="store_true")
    client = _Client(parser.parse_args())
    print("READY", flush=True)
    client.serve()


if __name__ == "__main__":
    main()
