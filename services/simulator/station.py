"""One simulated CPU: its memory, its operating state and its answers to S7 telegrams.

Why not python-snap7's server: it always grants one job and PDU 480, so a pipelining reader is never
exercised; it answers a BIT item with the whole byte and leaves an item with an unknown area out of
the reply; it lacks SZL 0x0424 (CPU state); and each station costs a polling thread plus one per
connection, too much for 50 stations beside what is measured. Telegrams follow what CPUs do: PDU and
jobs granted up to the CPU's own, an error for what exceeds the PDU, a return code per item.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

DB, INPUTS, OUTPUTS, FLAGS, COUNTERS, TIMERS = 0x84, 0x81, 0x82, 0x83, 0x1C, 0x1D
_AREAS = frozenset((DB, INPUTS, OUTPUTS, FLAGS, COUNTERS, TIMERS))
# Bytes per element of a transport size in a request (BIT is special).
_ELEMENT_BYTES = {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 4, COUNTERS: 2, TIMERS: 2}
_BIT = 1
# Return codes of one item.
_GOOD, _ACCESS_DENIED, _OUT_OF_RANGE, _BAD_TYPE, _NO_OBJECT = 0xFF, 0x03, 0x05, 0x06, 0x0A
_RUN, _STOP = 0x08, 0x04
_ITEM = struct.Struct(">BBBBHHB")
_PDU_TOO_LONG = (0x85, 0x00)
_UNKNOWN_FUNCTION = (0x81, 0x04)


@dataclass(slots=True)
class Session:
    """What one connection was granted; ``pdu_bytes`` is 0 before its setup."""

    pdu_bytes: int = 0


@dataclass(slots=True)
class Station:
    """A CPU. ``memory`` maps (area, DB number or 0) to its bytes."""

    name: str
    pdu_bytes: int = 480
    jobs: int = 8
    memory: dict[tuple[int, int], bytearray] = field(default_factory=dict)
    running: bool = True
    """False: the CPU is in STOP, its data frozen; it still answers."""
    refuses: bool = False
    """True: every item is answered "access denied", as with PUT/GET not permitted."""
    reads: int = 0
    writes: int = 0
    on_read: Callable[[], None] | None = None
    """Called once per read telegram, before its answer is made."""

    def area(self, area: int, number: int, size_bytes: int) -> bytearray:
        """The bytes of an area, at least ``size_bytes`` of them; a block ends at an even byte."""
        memory = self.memory.setdefault((area, number), bytearray())
        size_bytes += size_bytes % 2
        if len(memory) < size_bytes:
            memory.extend(bytes(size_bytes - len(memory)))
        return memory

    def answer(self, session: Session, pdu: bytes) -> bytes:
        """The reply to one S7 telegram (without TPKT and COTP).

        Raises ValueError for bytes that are no S7 telegram: the connection is then dropped, as a
        CPU does.
        """
        if len(pdu) < 10 or pdu[0] != 0x32:
            raise ValueError("not an S7 telegram")
        kind = pdu[1]
        reference = pdu[4:6]
        parameter_bytes, data_bytes = struct.unpack_from(">HH", pdu, 6)
        if len(pdu) != 10 + parameter_bytes + data_bytes or parameter_bytes == 0:
            raise ValueError("an S7 telegram of another length than it says")
        parameters = pdu[10 : 10 + parameter_bytes]
        data = pdu[10 + parameter_bytes :]
        if kind == 7:
            return self._userdata(reference, parameters, data)
        if kind != 1:
            raise ValueError(f"telegram kind {kind}")
        function = parameters[0]
        if function == 0xF0:
            return self._setup(session, reference, parameters)
        if len(pdu) > session.pdu_bytes:
            return _reply(reference, b"", b"", _PDU_TOO_LONG)
        if function == 4:
            return self._read(session, reference, parameters)
        if function == 5:
            return self._write(reference, parameters, data)
        return _reply(reference, b"", b"", _UNKNOWN_FUNCTION)

    def _setup(self, session: Session, reference: bytes, parameters: bytes) -> bytes:
        if len(parameters) != 8:
            raise ValueError("setup communication of another length")
        calling, called, asked_bytes = struct.unpack(">HHH", parameters[2:])
        session.pdu_bytes = max(min(asked_bytes, self.pdu_bytes), 112)
        granted = struct.pack(
            ">BBHHH",
            0xF0,
            0,
            max(min(calling, self.jobs), 1),
            max(min(called, self.jobs), 1),
            session.pdu_bytes,
        )
        return _reply(reference, granted, b"")

    def _read(self, session: Session, reference: bytes, parameters: bytes) -> bytes:
        self.reads += 1
        if self.on_read is not None:
            self.on_read()
        data = bytearray()
        items = _items(parameters)
        for item in items:
            if len(data) % 2:
                data.append(0)
            data += self._read_item(item)
        if 14 + len(data) > session.pdu_bytes:
            return _reply(reference, b"", b"", _PDU_TOO_LONG)
        return _reply(reference, bytes((4, len(items))), bytes(data))

    def _locate(self, item: bytes) -> tuple[int, bytearray, int, int, int]:
        """(return code, memory, first byte, bytes, bit) of one item of a request."""
        nothing = bytearray()
        spec, length, syntax, transport, count, number, area = _ITEM.unpack_from(item)
        if self.refuses:
            return _ACCESS_DENIED, nothing, 0, 0, 0
        if spec != 0x12 or length != 10 or syntax != 0x10 or area not in _AREAS:
            return _NO_OBJECT, nothing, 0, 0, 0
        memory = self.memory.get((area, number if area == DB else 0))
        if memory is None:
            return _NO_OBJECT, nothing, 0, 0, 0
        address = int.from_bytes(item[9:12], "big")
        if transport == _BIT:
            start, size, bit = address >> 3, 1, address & 7
            if count != 1:
                return _BAD_TYPE, nothing, 0, 0, 0
        elif transport in _ELEMENT_BYTES:
            numbered = area in (COUNTERS, TIMERS)
            start = address * 2 if numbered else address >> 3
            size, bit = count * _ELEMENT_BYTES[transport], 0
        else:
            return _BAD_TYPE, nothing, 0, 0, 0
        if start + size > len(memory) or size == 0:
            return _OUT_OF_RANGE, nothing, 0, 0, 0
        return _GOOD, memory, start, size, bit

    def _read_item(self, item: bytes) -> bytes:
        code, memory, start, size, bit = self._locate(item)
        if code != _GOOD:
            return bytes((code, 0, 0, 0))
        transport = item[3]
        if transport == _BIT:
            return bytes((_GOOD, 3, 0, 1, memory[start] >> bit & 1))
        if transport in (8, COUNTERS, TIMERS):  # REAL and octets: the length is in bytes
            head = struct.pack(">BBH", _GOOD, 7 if transport == 8 else 9, size)
        else:
            head = struct.pack(">BBH", _GOOD, 4, size * 8)
        return head + memory[start : start + size]

    def _write(self, reference: bytes, parameters: bytes, data: bytes) -> bytes:
        self.writes += 1
        codes = bytearray()
        at = 0
        items = _items(parameters)
        for item in items:
            if at + 4 > len(data):
                raise ValueError("a write without its data")
            transport, length = struct.unpack_from(">xBH", data, at)
            size_bytes = length if transport in (3, 7, 9) else (length + 7) // 8
            value = data[at + 4 : at + 4 + size_bytes]
            at += 4 + size_bytes + size_bytes % 2
            code, memory, start, size, bit = self._locate(item)
            if code == _GOOD and len(value) != size:
                code = _BAD_TYPE
            if code == _GOOD and item[3] == _BIT:
                memory[start] = memory[start] & ~(1 << bit) | (value[0] & 1) << bit
            elif code == _GOOD:
                memory[start : start + size] = value
            codes.append(code)
        return _reply(reference, bytes((5, len(items))), bytes(codes))

    # --- what a CPU tells of itself ----------------------------------------------------------

    def _userdata(self, reference: bytes, parameters: bytes, data: bytes) -> bytes:
        if len(parameters) < 8:
            raise ValueError("userdata too short")
        group, subfunction, sequence = parameters[5] & 0x0F, parameters[6], parameters[7]
        content: bytes | None = None
        if (group, subfunction) == (4, 1) and len(data) >= 8:
            content = self._szl(*struct.unpack(">HH", data[4:8]))
        elif (group, subfunction) == (7, 1):
            content = _clock(datetime.now())
        # 0xD401: the information asked for does not exist here.
        error = 0 if content is not None else 0xD401
        answer = struct.pack(
            ">BBBBBBBBBBH", 0, 1, 0x12, 8, 0x12, 0x80 | group, subfunction, sequence, 0, 0, error
        )
        body = (
            struct.pack(">BBH", _GOOD, 9, len(content)) + content
            if content is not None
            else bytes((_NO_OBJECT, 0, 0, 0))
        )
        header = struct.pack(">BBH", 0x32, 7, 0) + reference
        return header + struct.pack(">HH", len(answer), len(body)) + answer + body

    def _szl(self, list_id: int, index: int) -> bytes | None:
        """A system status list: id, index, record length, number of records, records."""
        state = _RUN if self.running else _STOP
        records: list[bytes]
        if list_id == 0x0424:  # operating state; the fourth byte is what counts
            records = [bytes((0x51, 0x44, 0xFF, state)) + bytes(16)]
        elif list_id == 0x0011:  # order number and firmware version
            records = [
                struct.pack(">H20sHHH", 1, b"6ES7 515-2SIM0-0AB0 ", 0, 1, 1),
                struct.pack(">H20sHHH", 7, b"plc-edge simulator  ", 0, 0x5602, 0x0100),
            ]
        elif list_id == 0x001C:
            texts = (self.name, "plc-edge simulator", "", "plc-edge", "SIM-0001", "CPU 1515 SIM")
            records = [
                struct.pack(">H32s", n, t.encode()[:24]) for n, t in enumerate(texts, start=1)
            ]
        elif list_id == 0x0131:
            records = [struct.pack(">HHHII", 1, self.pdu_bytes, 32, 12_000_000, 0) + bytes(26)]
        elif list_id == 0x0232:  # no protection level
            records = [struct.pack(">HHHHHH", 4, 1, 0, 1, 2, 1) + bytes(28)]
        else:
            return None
        head = struct.pack(">HHHH", list_id, index, len(records[0]), len(records))
        return head + b"".join(records)


def _items(parameters: bytes) -> list[bytes]:
    count = parameters[1] if len(parameters) > 1 else 0
    if count == 0 or len(parameters) != 2 + 12 * count:
        raise ValueError("items of another length")
    return [parameters[2 + 12 * i : 14 + 12 * i] for i in range(count)]


def _reply(
    reference: bytes, parameters: bytes, data: bytes, error: tuple[int, int] = (0, 0)
) -> bytes:
    header = struct.pack(">BBH", 0x32, 3, 0) + reference
    return header + struct.pack(">HHBB", len(parameters), len(data), *error) + parameters + data


def _clock(now: datetime) -> bytes:
    def bcd(n: int) -> int:
        return n // 10 << 4 | n % 10

    ms = now.microsecond // 1_000
    weekday = now.isoweekday() % 7 + 1  # 1 = Sunday
    parts = (now.year % 100, now.month, now.day, now.hour, now.minute, now.second, ms // 10)
    return bytes((0, bcd(now.year // 100), *map(bcd, parts), ms % 10 << 4 | weekday))


def connection_confirm(request: bytes) -> bytes:
    """The TPKT that accepts a COTP connection request (``request`` without its TPKT header).

    Raises ValueError where it is none.
    """
    if len(request) < 7 or request[1] & 0xF0 != 0xE0:
        raise ValueError("not a COTP connection request")
    body = bytes((0xD0,)) + request[4:6] + b"\x00\x01\x00" + request[7:]
    return frame(bytes((len(body),)) + body)


def frame(cotp: bytes) -> bytes:
    """``cotp`` in a TPKT."""
    return struct.pack(">BBH", 3, 0, 4 + len(cotp)) + cotp


def monotonic_log(path: str) -> Callable[[], None]:
    """A callback that appends the monotonic time (ns, u64 little-endian) to a file, unbuffered."""
    file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the process lives

    def log() -> None:
        file.write(struct.pack("<Q", time.monotonic_ns()))

    return log
