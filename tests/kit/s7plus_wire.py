"""S7CommPlus values and type descriptions as a CPU writes them: written from the protocol, not with
``s7commplus``, so that what it misreads is seen.

Numbers of variable length: groups of 7 bits, high ones first, bit 7 says that more follow; signed
ones begin with their sign in bit 6; the ninth byte of a 64-bit number has 8 bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from services.s7.types import S7Type, parse_type

SOFT = {
    "BOOL": 1, "BYTE": 2, "CHAR": 3, "WORD": 4, "INT": 5, "DWORD": 6, "DINT": 7, "REAL": 8,
    "DATE": 9, "TOD": 10, "TIME": 11, "S5TIME": 12, "DT": 14, "STRING": 19, "LREAL": 48,
    "ULINT": 49, "LINT": 50, "LWORD": 51, "USINT": 52, "UINT": 53, "UDINT": 54, "SINT": 55,
    "WCHAR": 61, "WSTRING": 62, "LTIME": 64, "LTOD": 65, "LDT": 66, "DTL": 67,
}  # fmt: skip
BBOOL, STRUCT, POINTER = 40, 17, 20
_WIRE = {
    "BOOL": 0x01, "USINT": 0x02, "UINT": 0x03, "UDINT": 0x04, "ULINT": 0x05, "SINT": 0x06,
    "INT": 0x07, "DINT": 0x08, "LINT": 0x09, "BYTE": 0x0A, "CHAR": 0x0A, "WORD": 0x0B,
    "DWORD": 0x0C, "LWORD": 0x0D, "REAL": 0x0E, "LREAL": 0x0F, "LDT": 0x10, "LTIME": 0x11,
    "DATE": 0x03, "WCHAR": 0x03, "S5TIME": 0x0B, "TOD": 0x04, "TIME": 0x08, "LTOD": 0x05,
}  # fmt: skip
_SIGNED = frozenset((0x08, 0x09, 0x11))
_VARIABLE = frozenset((0x04, 0x05, 0x08, 0x09, 0x11))


def unsigned(value: int, bits: int = 32) -> bytes:
    """A number of variable length."""
    if bits == 64 and value >= 1 << 56:
        return bytes(0x80 | value >> (57 - 7 * n) & 0x7F for n in range(8)) + bytes((value & 255,))
    return _groups(value, max(1, -(-value.bit_length() // 7)))


def signed(value: int, bits: int = 32) -> bytes:
    """The same, of a number that may be negative."""
    count = 1
    while not -(1 << 7 * count - 1) <= value < 1 << 7 * count - 1:
        count += 1
    if bits == 64 and count > 8:
        raw = value & (1 << 64) - 1
        return bytes(0x80 | raw >> (57 - 7 * n) & 0x7F for n in range(8)) + bytes((raw & 255,))
    return _groups(value & (1 << 7 * count) - 1, count)


def _groups(value: int, count: int) -> bytes:
    groups = [value >> 7 * n & 0x7F for n in range(count - 1, -1, -1)]
    return bytes(g | 0x80 for g in groups[:-1]) + bytes((groups[-1],))


def number(text: S7Type | str, raw: bytes) -> bytes:
    """One value of an elementary type, given as classic access has it (high byte first)."""
    kind = _WIRE[text if isinstance(text, str) else text.base]
    if kind not in _VARIABLE:
        return raw
    value = int.from_bytes(raw, signed=kind in _SIGNED)
    bits = 8 * len(raw)
    return signed(value, bits) if kind in _SIGNED else unsigned(value, bits)


def value(t: S7Type, raw: bytes) -> bytes:
    """A scalar variable's value: flags, type, content."""
    if t.base in ("STRING", "DT"):
        return bytes((0x10, 0x02)) + unsigned(len(raw)) + raw
    if t.base == "WSTRING":
        return bytes((0x10, 0x03)) + unsigned(len(raw) // 2) + raw
    if t.base == "DTL":
        head = struct.pack(">IQ", 0x02000043, 0x1122334455667788)
        return bytes((0x00, 0x17)) + head + unsigned(2) + unsigned(len(raw)) + raw
    return bytes((0x00, _WIRE[t.base])) + number(t, raw)


def array(base: str, raws: Sequence[bytes]) -> bytes:
    """A whole array in one value."""
    body = b"".join(number(base, raw) for raw in raws)
    return bytes((0x10, _WIRE[base])) + unsigned(len(raws)) + body


@dataclass(slots=True)
class Var:
    """A declaration: ``Var("speed", "REAL")``, or a struct of others, perhaps repeated."""

    name: str
    type: str = ""
    members: Sequence[Var] = ()
    dims: tuple[tuple[int, int], ...] = ()
    """Of a struct that repeats; a type has its own."""

    @property
    def s7_type(self) -> S7Type | None:
        """None for structs."""
        return parse_type(self.type) if self.type else None


def name_list(names: Sequence[str]) -> bytes:
    """A VarnameList."""
    entries = b"".join(bytes((len(n.encode()),)) + n.encode() + b"\0" for n in names)
    return b"\xac" + _blocks(entries)


def _blocks(entries: bytes) -> bytes:
    return (struct.pack(">H", len(entries)) + entries if entries else b"") + struct.pack(">H", 0)


def type_list(elements: Sequence[bytes]) -> bytes:
    """A PVartypeList, split over two blocks as CPUs split long ones."""
    half = (len(elements) + 1) // 2
    first, rest = b"".join(elements[:half]), b"".join(elements[half:])
    out = b"\xab" + struct.pack(">H", 4 + len(first)) + struct.pack("<I", 1) + first
    return out + _blocks(rest)


def element(lid: int, var: Var, relation: int) -> bytes:
    """One member's entry in a PVartypeList. ``relation``: the description of its struct."""
    t = var.s7_type
    dims = t.dims if t is not None else var.dims
    soft = STRUCT if t is None else SOFT[t.base]
    if soft == 1 and dims:
        soft = BBOOL
    length = t.length if t is not None else 0
    is_struct = t is None or t.base == "DTL"
    kind, info = _offset_info(dims, length, relation if is_struct else 0)
    head = struct.pack("<II", lid, 0xC0FFEE00 + lid) + bytes((soft,))
    return head + struct.pack(">H", kind << 12) + b"\0" + info


def _offset_info(
    dims: tuple[tuple[int, int], ...], length: int, relation: int
) -> tuple[int, bytes]:
    plain = struct.pack("<HHII", length, 0, 0, 0)
    counts = [high - low + 1 for low, high in dims]
    span = struct.pack("<iI", dims[0][0], math.prod(counts)) if dims else b""
    if len(dims) > 1:
        lows = [low for low, _ in dims][::-1] + [0] * (6 - len(dims))
        sizes = counts[::-1] + [0] * (6 - len(dims))
        span += struct.pack("<6i", *lows) + struct.pack("<6I", *sizes)
    if relation:
        sizes_of_struct = struct.pack("<II", 0, 0) if dims else b""
        tail = sizes_of_struct + struct.pack("<I4I", relation, 0, 0, 0, 0)
        return (12 if not dims else 13 if len(dims) == 1 else 14), plain + span + tail
    if dims:
        return (10 if len(dims) == 1 else 11), plain + span
    if length:
        return 9, plain
    return 8, struct.pack("<HH", 0, 0)
