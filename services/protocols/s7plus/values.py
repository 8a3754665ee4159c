"""Replies to reads of symbols: each item's value as the bytes that classic access would give.

So one decoder (services/s7) makes the values of both protocols, and a type has one meaning. Written
here because ``s7commplus`` drops the codes of refused items, cuts values at the end of a short
reply without a word, takes a value of any type, and misreads arrays whose elements have a variable
length (docs/s7plus.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from s7commplus.protocol import DataType as T
from s7commplus.vlq import (
    decode_int32_vlq,
    decode_int64_vlq,
    decode_uint32_vlq,
    decode_uint64_vlq,
)

_ARRAY: Final = 0x10
_FIXED: Final[dict[int, int]] = {
    T.BOOL: 1, T.USINT: 1, T.SINT: 1, T.BYTE: 1, T.UINT: 2, T.INT: 2, T.WORD: 2, T.DWORD: 4,
    T.LWORD: 8, T.REAL: 4, T.LREAL: 8, T.TIMESTAMP: 8,
}  # fmt: skip
_VARIABLE: Final[dict[int, tuple[Callable[[bytes, int], tuple[int, int]], struct.Struct]]] = {
    T.UDINT: (decode_uint32_vlq, struct.Struct(">I")),
    T.DINT: (decode_int32_vlq, struct.Struct(">i")),
    T.ULINT: (decode_uint64_vlq, struct.Struct(">Q")),
    T.LINT: (decode_int64_vlq, struct.Struct(">q")),
    T.TIMESPAN: (decode_int64_vlq, struct.Struct(">q")),
}
# What a CPU may send for a type of ours: (sent as, as an array). A value of another type is not
# that variable: the program was changed under us.
_BYTES = frozenset(((T.BYTE, True), (T.USINT, True)))
_WORDS = frozenset(((T.UINT, True), (T.WORD, True)))
SENT_AS: Final[dict[str, frozenset[tuple[int, bool]]]] = {
    "BOOL": frozenset(((T.BOOL, False),)),
    "BYTE": frozenset(((T.BYTE, False), (T.USINT, False))),
    "CHAR": frozenset(((T.BYTE, False), (T.USINT, False))),
    "USINT": frozenset(((T.USINT, False), (T.BYTE, False))),
    "SINT": frozenset(((T.SINT, False),)),
    "WORD": frozenset(((T.WORD, False), (T.UINT, False))),
    "UINT": frozenset(((T.UINT, False), (T.WORD, False))),
    "WCHAR": frozenset(((T.UINT, False), (T.WORD, False))),
    "DATE": frozenset(((T.UINT, False), (T.WORD, False))),
    "S5TIME": frozenset(((T.WORD, False), (T.UINT, False))),
    "INT": frozenset(((T.INT, False),)),
    "DWORD": frozenset(((T.DWORD, False), (T.UDINT, False))),
    "UDINT": frozenset(((T.UDINT, False), (T.DWORD, False))),
    "TOD": frozenset(((T.UDINT, False), (T.DWORD, False))),
    "DINT": frozenset(((T.DINT, False),)),
    "TIME": frozenset(((T.DINT, False),)),
    "REAL": frozenset(((T.REAL, False),)),
    "LREAL": frozenset(((T.LREAL, False),)),
    "LWORD": frozenset(((T.LWORD, False), (T.ULINT, False))),
    "ULINT": frozenset(((T.ULINT, False), (T.LWORD, False))),
    "LINT": frozenset(((T.LINT, False),)),
    "LTIME": frozenset(((T.TIMESPAN, False), (T.LINT, False))),
    "LTOD": frozenset(((T.ULINT, False), (T.LWORD, False), (T.TIMESTAMP, False))),
    "LDT": frozenset(((T.TIMESTAMP, False), (T.ULINT, False), (T.LWORD, False))),
    "DT": _BYTES | {(T.TIMESTAMP, False)},
    "DTL": frozenset(((T.STRUCT, False),)),
    "STRING": _BYTES,
    "WSTRING": _WORDS,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A value as it came."""

    kind: int
    """Its type on the wire (s7commplus.protocol.DataType)."""
    is_array: bool
    raw: bytes
    """As classic access gives it: high byte first, elements in a row."""


class ReplyError(ValueError):
    """A reply that cannot be read to its end: nothing of it is used."""


def parse_reply(reply: bytes, count: int) -> list[Sent | int]:
    """What became of each of ``count`` items: its value, or the CPU's code for a refusal.

    Raises ReplyError; ``Refused`` where the CPU refuses the request.
    """
    try:
        return _parse(reply, count)
    except (IndexError, struct.error, ValueError) as e:
        if isinstance(e, ReplyError):
            raise
        raise ReplyError(f"a reply of {len(reply)} bytes that is no list of values: {e}") from None


class Refused(ReplyError):
    """The CPU refuses a request as a whole. ``code`` is its 64-bit return value."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the CPU refuses the request (0x{code:016X})")


def _parse(reply: bytes, count: int) -> list[Sent | int]:
    code, at = decode_uint64_vlq(reply, 0)
    if code:
        raise Refused(code)
    found: list[Sent | int | None] = [None] * count
    while True:
        at, number = _item(reply, at, found)
        if not number:
            break
        found[number - 1], at = _value(reply, at)
    while True:
        at, number = _item(reply, at, found)
        if not number:
            break
        refusal, size = decode_uint64_vlq(reply, at)
        found[number - 1] = refusal
        at += size
    missing = found.count(None)
    if missing:
        raise ReplyError(f"{missing} of {count} items are neither given nor refused")
    return [f for f in found if f is not None]


def _item(reply: bytes, at: int, found: list[Sent | int | None]) -> tuple[int, int]:
    number, size = decode_uint32_vlq(reply, at)
    if number > len(found) or (number and found[number - 1] is not None):
        raise ReplyError(f"item {number} was not asked for, or comes twice")
    return at + size, number


def _value(reply: bytes, at: int) -> tuple[Sent, int]:
    flags, kind = reply[at], reply[at + 1]
    at += 2
    is_array = bool(flags & _ARRAY)
    if flags & ~_ARRAY:
        raise ReplyError(f"a value with flags 0x{flags:02x}, type 0x{kind:02x}")
    count = 1
    if is_array:
        count, size = decode_uint32_vlq(reply, at)
        at += size
    if (width := _FIXED.get(kind)) is not None:
        return _cut(reply, at, kind, is_array, count * width)
    if (variable := _VARIABLE.get(kind)) is not None:
        decode, packed = variable
        if count > len(reply) - at:
            raise ReplyError(f"an array of {count} elements in {len(reply)} bytes")
        out = bytearray()
        for _ in range(count):
            value, size = decode(reply, at)
            at += size
            out += packed.pack(value)
        return Sent(kind, is_array, bytes(out)), at
    if kind == T.STRUCT and not is_array:
        return _packed_struct(reply, at)
    raise ReplyError(f"a value of type 0x{kind:02x}")


def _cut(reply: bytes, at: int, kind: int, is_array: bool, size: int) -> tuple[Sent, int]:
    if at + size > len(reply):
        raise ReplyError(f"a value of {size} bytes where {len(reply) - at} are left")
    return Sent(kind, is_array, bytes(reply[at : at + size])), at + size


def _packed_struct(reply: bytes, at: int) -> tuple[Sent, int]:
    """A system type (DTL) comes as its bytes, behind the description they are laid out by."""
    number = int.from_bytes(reply[at : at + 4])
    at += 4
    if not (0x90000000 < number < 0x9FFFFFFF or 0x02000000 < number < 0x02FFFFFF):
        raise ReplyError(f"a struct of kind 0x{number:08x}")
    at += 8  # when the description was made
    flags, size = decode_uint32_vlq(reply, at)
    at += size
    count, size = decode_uint32_vlq(reply, at)
    at += size
    if flags & 0x400:
        count, size = decode_uint32_vlq(reply, at)
        at += size
    return _cut(reply, at, T.STRUCT, False, count)
