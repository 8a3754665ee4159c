"""A strict PLC for tests: behaves as CPUs do and library servers do not; misbehaves on order.

    with FakePlc({500: bytearray(400)}, pdu_bytes=240, jobs=3) as plc:
        plc.port, plc.blocks[500]          # change the bytes as the PLC's program would
        plc.delay_s = 0.005                # from now on
        plc.denied.add((500, 10, 20))      # bytes 10 to 19 of DB500: access denied
        plc.refusal = 0x8104               # every read is refused whole (PUT/GET not permitted)
        plc.cut_items = 20                 # answers 20 items at most, and says OK
        plc.max_connections = 1            # all taken: another one is refused, as plc.when_full
        plc.deaf = "setup"                 # accepts up to there and never answers ("cotp", "setup")
        plc.faults = {"reset": 0.01}       # probabilities per reply, from a seeded generator
        plc.violations                     # what a client did that no client may do
        plc.scans_ns                       # monotonic time of every read telegram

Strict: an over-long request or reply is an error (0x8500), more jobs in flight than granted are a
violation, a write outside ``writable`` is refused and a violation. It answers in order, after
``delay_s``, unless a fault says otherwise:

    reset      the connection is reset instead of an answer
    drop       this telegram is never answered, the connection stays
    ghost      the connection is reset, and this answer comes on the next one, before any other (as
               through a gateway to a serial line or MPI)
    late       the answer comes after ``late_s``
    reorder    the answers behind it overtake this one
    cut        half of the answer, then the connection is closed
    short      an answer whose last item is one byte short (lengths consistent)
    fewer      an answer with an item less than asked (as servers that cut at 20 items)
    stray      an answer with another PDU reference
    garbage    bytes that are no TPKT
    error      every item is refused with "hardware fault"
    half_open  from here on nothing is answered on this connection

As a process: ``python -m tests.kit.fake_plc --db 500:400 [--pdu 240] [--jobs 3] [--port N]`` prints
``READY <port>``.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from services.simulator.station import DB, Session, Station, connection_confirm, frame
from tests.kit.common import free_port

_DENIED, _FAULT = 0x03, 0x01
REORDER_S = 0.004
FAULTS = ("reset", "drop", "ghost", "late", "reorder", "cut", "short", "fewer", "stray", "garbage",
          "error", "half_open")  # fmt: skip


class _Cpu(Station):
    """The station's answers, with denied bytes."""

    plc: FakePlc

    def _locate(self, item: bytes) -> tuple[int, bytearray, int, int, int]:
        code, memory, start, size, bit = super()._locate(item)
        number, area = struct.unpack_from(">HB", item, 6)
        if area in self.plc.denied_areas:
            return _DENIED, bytearray(), 0, 0, 0
        if area == DB and any(
            number == db and start < b and a < start + size for db, a, b in self.plc.denied
        ):
            return _DENIED, bytearray(), 0, 0, 0
        return code, memory, start, size, bit


class FakePlc:
    """One CPU on a port of 127.0.0.1 (or another ``host``); ``blocks`` maps DB number to its bytes
    (kept, not copied).
    """

    def __init__(
        self,
        blocks: Mapping[int, bytearray],
        *,
        pdu_bytes: int = 480,
        jobs: int = 8,
        tsap: int | None = None,
        writable: Mapping[int, tuple[int, int]] | None = None,
        seed: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.blocks = dict(blocks)
        self.cpu = _Cpu("fake", pdu_bytes, jobs)
        self.cpu.plc = self
        for number, data in blocks.items():
            self.cpu.memory[DB, number] = data
        self.tsap = tsap
        """The only remote TSAP that is accepted; None: any."""
        self.writable = dict(writable or {})
        """DB -> [first, after last] that a client may write."""
        self.write_delay_s = 0.0
        self.write_code = 0xFF
        """What writes are answered with; another code than 0xFF is a refusal."""
        self.delay_s = 0.0
        self.late_s = 1.0
        self.faults: dict[str, float] = {}
        self.denied: set[tuple[int, int, int]] = set()
        self.denied_areas: set[int] = set()
        """Areas (FLAGS, …) whose every byte is denied."""
        self.refusal = 0
        """Error class and code that every read is answered with; 0: none."""
        self.cut_items = 0
        """Answers so many items at most and says nothing of the others; 0: all."""
        self.silent = False
        """Accepts TCP and never answers (a hung CPU, a pulled cable behind a switch)."""
        self.deaf = ""
        """Never answers the connection request ("cotp") or the setup behind it ("setup")."""
        self.max_connections = 0
        """So many at a time; 0: any number."""
        self.when_full = "close"
        """What one too many meets, at its COTP request: "close", "reset", "disconnect" (COTP,
        congestion); at its setup: "setup" (an S7 error), "close_setup".
        """
        self.answers_state = True
        self.part_bytes = 0
        """Sends each PDU in COTP packets of so many bytes; 0: in one."""
        self.before_read: Callable[[], None] = lambda: None
        """Called before each read is answered: the PLC's program."""
        self.violations: list[str] = []
        self.faults_done: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.scans_ns: list[int] = []
        self.written: list[tuple[int, int, bytes]] = []
        self.connections = 0
        self.served: set[socket.socket] = set()
        """Those that have an S7 connection."""
        self.ghosts: list[bytes] = []
        """Answers that the next connection will get."""
        self._random = random.Random(seed)
        self.lock = threading.RLock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.host = host
        self.port = port or free_port()
        self._listener: socket.socket | None = None

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        with self.lock:
            return len(self._sockets)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def up(self) -> None:
        """Listens (again), on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(16)
        self._listener = listener
        self._run(self._accept, listener)

    def down(self) -> None:
        """Stops listening and resets every connection."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset_all()
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def reset_all(self) -> None:
        """RST on every connection."""
        with self.lock:
            for s in list(self._sockets):
                _reset(s)

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self._sockets.add(client)
                self.connections += 1
            self._run(_Connection(self, client).serve)

    def forget(self, client: socket.socket) -> None:
        """A connection has ended."""
        with self.lock:
            self._sockets.discard(client)
            self.served.discard(client)
        client.close()

    def pick_fault(self) -> str:
        """The fault for the next reply, or ""."""
        with self.lock:
            for name, chance in self.faults.items():
                if self._random.random() < chance:
                    self.faults_done[name] += 1
                    return name
        return ""


class _Connection:
    def __init__(self, plc: FakePlc, client: socket.socket) -> None:
        self.plc = plc
        self.client = client
        self.session = Session()
        self.outgoing: list[tuple[float, int, bytes]] = []
        self.count = 0
        self.half_open = False
        self.is_surplus = False
        self.wake = threading.Condition()
        self.closed = False

    def serve(self) -> None:
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        try:
            buffer = b""
            while True:
                data = self.client.recv(65_536)
                if not data:
                    return
                buffer += data
                while len(buffer) >= 4 and len(buffer) >= (size := buffer[2] << 8 | buffer[3]):
                    packet, buffer = buffer[4:size], buffer[size:]
                    if not self.plc.silent and not self.half_open:
                        self._packet(packet)
        except (OSError, ValueError):
            return
        finally:
            with self.wake:
                self.closed = True
                self.wake.notify()
            writer.join(5)
            self.plc.forget(self.client)

    def _packet(self, packet: bytes) -> None:
        if packet[1] & 0xF0 == 0xE0:
            at = packet.find(b"\xc2\x02")
            remote = int.from_bytes(packet[at + 2 : at + 4])
            if self.plc.tsap is not None and remote != self.plc.tsap:
                raise ValueError("another TSAP")  # CPUs close the connection
            if self.plc.deaf == "cotp":
                return
            with self.plc.lock:
                self.is_surplus = 0 < self.plc.max_connections <= len(self.plc.served)
                if not self.is_surplus:
                    self.plc.served.add(self.client)
            if self.is_surplus and self._refuse_room(packet):
                return
            self._send(connection_confirm(packet), 0.0)
            return
        pdu = packet[3:]
        function = pdu[10] if pdu[1] == 1 else 0
        if function == 0xF0 and self.plc.deaf == "setup":
            return
        if function == 0xF0 and self.is_surplus and self.plc.when_full == "close_setup":
            raise ValueError("full")
        if function == 0xF0 and self.is_surplus and self.plc.when_full == "setup":
            head = struct.pack(">BBH", 0x32, 2, 0) + pdu[4:6]
            self._send(frame(b"\x02\xf0\x80" + head + bytes(4) + b"\x83\x04"), 0.0)
            return
        if function == 4:
            with self.plc.lock:
                ghosts, self.plc.ghosts = self.plc.ghosts, []
            for ghost in ghosts:
                self.client.sendall(ghost)
        if pdu[1] == 7 and not self.plc.answers_state:
            return
        if function == 5:
            self._take_write(pdu)
            return
        if pdu[1] == 7 or function == 4:
            with self.wake:
                waiting = sum(1 for _, _, packet in self.outgoing if packet)
            if waiting >= self.plc.cpu.jobs:
                self.plc.violations.append(
                    f"{waiting + 1} jobs in flight, {self.plc.cpu.jobs} granted"
                )
        if function == 4:
            self.plc.scans_ns.append(time.monotonic_ns())
            self.plc.before_read()
        reply = self.plc.cpu.answer(self.session, pdu)
        if function == 4 and len(pdu) > self.session.pdu_bytes:
            self.plc.violations.append(f"request of {len(pdu)} bytes, PDU {self.session.pdu_bytes}")
        if reply[1] == 3 and reply[10]:
            self.plc.violations.append(f"refused telegram: 0x{reply[10]:02x}{reply[11]:02x}")
        if function == 4 and self.plc.refusal:
            reply = struct.pack(">BBH", 0x32, 3, 0) + pdu[4:6] + bytes(4)
            reply += self.plc.refusal.to_bytes(2)
        elif function == 4 and 0 < self.plc.cut_items < reply[13]:
            reply = _mangle(reply, "fewer", self.plc.cut_items)
        fault = self.plc.pick_fault() if function == 4 else ""
        self._answer(reply, fault)

    def _refuse_room(self, packet: bytes) -> bool:
        """No connection is free: says so as ``when_full`` does, if that is at this point."""
        how = self.plc.when_full
        if how == "disconnect":
            # DR: to our reference, from none, reason 0x81 (congestion); then closed.
            cotp = bytes((6, 0x80)) + packet[4:6] + b"\0\0\x81"
            self._send(frame(cotp), 0.0, then_close=True)
        elif how == "reset":
            _reset(self.client)
            raise OSError("full")
        elif how == "close":
            raise ValueError("full")
        return how == "disconnect"

    def _take_write(self, pdu: bytes) -> None:
        number, _area = struct.unpack_from(">HB", pdu, 18)
        start = int.from_bytes(pdu[21:24]) // 8
        length = struct.unpack_from(">H", pdu, 14 + 2)[0]
        allowed = self.plc.writable.get(number)
        if allowed is None or not (allowed[0] <= start and start + length <= allowed[1]):
            self.plc.violations.append(f"write of DB{number} bytes {start} to {start + length - 1}")
            code = _DENIED
        else:
            code = self.plc.write_code
        if code == 0xFF:
            self.plc.written.append((number, start, pdu[28 : 28 + length]))
            reply = self.plc.cpu.answer(self.session, pdu)
        else:
            head = struct.pack(">BBH", 0x32, 3, 0) + pdu[4:6]
            reply = head + struct.pack(">HHBB", 2, 1, 0, 0) + bytes((5, 1, code))
        self._send(frame(b"\x02\xf0\x80" + reply), self.plc.write_delay_s)

    def _answer(self, reply: bytes, fault: str) -> None:
        packet = _in_parts(reply, self.plc.part_bytes)
        delay_s = self.plc.delay_s
        if fault == "reset":
            _reset(self.client)
            raise OSError("reset")
        if fault == "ghost":
            # A gateway gives it to whoever is connected then.
            _reset(self.client)
            with self.plc.lock:
                self.plc.ghosts.append(packet)
            raise OSError("ghost")
        if fault == "drop":
            return
        if fault == "half_open":
            self.half_open = True
            return
        if fault == "garbage":
            packet = self.plc.cpu.name.encode() * 5
        elif fault == "late":
            delay_s = self.plc.late_s
        elif fault == "stray":
            packet = packet[:11] + bytes((packet[11] ^ 0x55, packet[12] ^ 0xAA)) + packet[13:]
        elif fault == "cut":
            self._send(packet[: len(packet) // 2], delay_s, then_close=True)
            return
        elif fault in ("short", "fewer", "error"):
            packet = frame(b"\x02\xf0\x80" + _mangle(reply, fault))
        # A few ms later: those behind it overtake.
        self._send(packet, delay_s + (REORDER_S if fault == "reorder" else 0.0))

    def _send(self, packet: bytes, delay_s: float, then_close: bool = False) -> None:
        with self.wake:
            self.count += 1
            heapq.heappush(self.outgoing, (time.monotonic() + delay_s, self.count, packet))
            if then_close:
                heapq.heappush(self.outgoing, (time.monotonic() + delay_s, self.count + 1, b""))
                self.count += 1
            self.wake.notify()

    def _write(self) -> None:
        while True:
            with self.wake:
                while not self.closed and (
                    not self.outgoing or self.outgoing[0][0] > time.monotonic()
                ):
                    left_s = self.outgoing[0][0] - time.monotonic() if self.outgoing else None
                    self.wake.wait(left_s)
                if self.closed:
                    return
                _, _, packet = heapq.heappop(self.outgoing)
            try:
                if packet:
                    self.client.sendall(packet)
                else:
                    self.client.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _in_parts(pdu: bytes, part_bytes: int) -> bytes:
    """A PDU in COTP data packets; only the last has the EOT bit."""
    parts = [pdu]
    if part_bytes:
        parts = [pdu[i : i + part_bytes] for i in range(0, len(pdu), part_bytes)]
    last = len(parts) - 1
    return b"".join(
        frame(b"\x02\xf0" + (b"\x80" if n == last else b"\0") + part)
        for n, part in enumerate(parts)
    )


def _reset(s: socket.socket) -> None:
    with contextlib.suppress(OSError):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        s.close()


def _mangle(reply: bytes, fault: str, keep: int = -1) -> bytes:
    """A read reply with wrong content and right lengths."""
    count = reply[13]
    items: list[bytes] = []
    at = 14
    for _ in range(count):
        bits = reply[at + 2] << 8 | reply[at + 3]
        size = (bits + 7) // 8 if reply[at + 1] in (3, 4, 5) else bits
        items.append(reply[at : at + 4 + size])
        at += 4 + size + size % 2
    if fault == "error":
        items = [bytes((_FAULT, 0, 0, 0))] * count
    elif fault == "fewer":
        items = items[:keep]
    else:
        last = items[-1]
        if len(last) > 5:
            bits = (len(last) - 5) * 8
            items[-1] = last[:2] + bits.to_bytes(2) + last[4:-1]
    data = b""
    for item in items:
        data += b"\0" * (len(data) % 2) + item
    head = reply[:8] + len(data).to_bytes(2) + reply[10:12]
    return head + bytes((4, len(items))) + data


def main() -> None:
    """Runs until its standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", action="append", required=True, help="NUMBER:BYTES")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pdu", type=int, default=480)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--delay-ms", type=float, default=0)
    given = parser.parse_args()
    sizes = [[int(word) for word in text.split(":")] for text in given.db]
    blocks = {number: bytearray(size) for number, size in sizes}
    with FakePlc(blocks, pdu_bytes=given.pdu, jobs=given.jobs, port=given.port) as plc:
        plc.delay_s = given.delay_ms / 1_000
        print(f"READY {plc.port}", flush=True)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            input()


if __name__ == "__main__":
    main()
