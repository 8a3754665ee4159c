"""Which requests bring a group's tags, and how their values become the bytes of each.

A tag's bytes are laid out as a classic block has them, so that services/s7 decodes them. Its items
stand in one request where they fit: a DTL or an array is not put together of two moments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from s7commplus.codec import encode_item_address, encode_object_qualifier
from s7commplus.protocol import Ids
from s7commplus.vlq import encode_uint32_vlq

from services.protocols.s7plus.symbols import Place, SymbolError, SymbolTree
from services.protocols.s7plus.values import SENT_AS, Sent
from services.s7.types import BadValue, S7Type, decode_value, nest

# A CPU 1215C with firmware 4.2 refuses more; PLCSIM Advanced hangs up on requests of 1,060 bytes
# and takes 860 (measured by the makers of s7commplus, who send no more than this).
MAX_ITEMS, MAX_REQUEST_BYTES = 50, 900
# Around a payload: header, session, IntegrityId at its longest, trailer, HMAC.
_AROUND_BYTES = 4 + 14 + 5 + 4 + 33
# Of a payload: link, counts of items and fields at their longest, fill.
_HEAD_BYTES = 4 + 3 + 5 + 4
_FIRST_BLOCK = 0x8A0E0000
TYPE_DIFFERS = "type_differs"


@dataclass(frozen=True, slots=True)
class Tag:
    """A field as this protocol reads it."""

    name: str
    symbol: str
    type: S7Type
    encoding: str = "latin-1"

    def decode(self, raw: bytes) -> Any:
        """The value of its bytes, as services/protocols/conform.py takes it. Raises BadValue."""
        t = self.type
        if t.base == "REAL":  # all its bits: the shortest form is made later
            reals = list(struct.unpack(f">{len(raw) // 4}f", raw))
            return nest(reals, t.counts) if t.dims else reals[0]
        return decode_value(t, raw, 0, self.encoding)


@dataclass(frozen=True, slots=True)
class Piece:
    """One item of a request: (part of) a tag's value."""

    tag: int
    """Index of the tag."""
    base: str
    """The type of the value, without dimensions."""
    place: int
    """Its first byte among the tag's."""
    size_bytes: int
    bit: int = -1
    """0 to 7 where it is a bit of that byte."""

    def take(self, sent: Sent, out: bytearray) -> bool:
        """Puts a value among the tag's bytes. False where it is of another type: the variable is
        another than before.
        """
        if (sent.kind, sent.is_array) not in SENT_AS[self.base]:
            return False
        if self.bit >= 0:
            if sent.raw[0]:
                out[self.place] |= 1 << self.bit
            return True
        size = len(sent.raw)
        if size != self.size_bytes:
            # What lies behind a string's characters need not come.
            head = {"STRING": 2, "WSTRING": 4}.get(self.base, size + 1)
            if not head <= size < self.size_bytes:
                return False
        out[self.place : self.place + size] = sent.raw
        return True


@dataclass(slots=True)
class Request:
    """One prebuilt read, and what its items are."""

    payload: bytes
    pieces: list[Piece]


@dataclass(slots=True)
class SymbolPlan:
    """Everything that one scan of a group sends."""

    tags: Sequence[Tag]
    requests: list[Request] = field(default_factory=list)
    refused: dict[int, SymbolError] = field(default_factory=dict)
    """Tags (by index) that the CPU does not have, or with another type."""


def make_plan(tree: SymbolTree, tags: Sequence[Tag], qualifier_version: int) -> SymbolPlan:
    """The plan for these tags in this program of the CPU."""
    plan = SymbolPlan(tags)
    items: list[list[_Item]] = []
    for number, tag in enumerate(tags):
        try:
            found = tree.find(tag.symbol)
            check_type(tag.symbol, found, tag.type)
            items.append(list(_items(number, found, tag.type)))
        except SymbolError as e:
            plan.refused[number] = e
    plan.requests = _pack(items, encode_object_qualifier(protocol_version=qualifier_version))
    return plan


def check_type(symbol: str, found: Place, declared: S7Type) -> None:
    """Raises SymbolError where the CPU's variable has another type than the field."""
    has = found.member.type
    if has is None:
        kind = "a struct: name a variable in it" if found.member.struct else "of a type of no value"
        raise SymbolError("no_value", f"{symbol} is {kind}")
    same = (has.base, has.length, has.counts) == (declared.base, declared.length, declared.counts)
    if not same:
        message = f"{symbol} is {has} in the CPU, and {declared} in the configuration"
        raise SymbolError(TYPE_DIFFERS, message)


_Item = tuple[bytes, int, Piece]
"""(address, how many numbers it has, what it is)."""


def _items(number: int, found: Place, declared: S7Type) -> Iterator[_Item]:
    is_block = found.area >= _FIRST_BLOCK
    part = Ids.DB_VALUE_ACTUAL if is_block else Ids.CONTROLLER_AREA_VALUE_ACTUAL
    row = declared.counts[-1] if declared.dims else 1
    row_bytes = (row + 7) // 8
    for n, lids in enumerate(found.elements()):
        address, count = encode_item_address(found.area, part, list(lids))
        if declared.base == "BOOL":
            at = n // row * row_bytes + n % row // 8
            piece = Piece(number, "BOOL", at, 1, n % row % 8)
        else:
            at = n * declared.stride_bytes
            piece = Piece(number, declared.base, at, declared.element_bytes)
        yield address, count, piece


def _pack(items: list[list[_Item]], qualifier: bytes) -> list[Request]:
    room = MAX_REQUEST_BYTES - _AROUND_BYTES - _HEAD_BYTES - len(qualifier)
    chunks: list[list[_Item]] = [[]]
    used = 0
    for of_tag in items:
        tag_bytes = sum(len(address) for address, _, _ in of_tag)
        if used + tag_bytes > room or len(chunks[-1]) + len(of_tag) > MAX_ITEMS:
            chunks.append([])
            used = 0
        for item in of_tag:
            if used + len(item[0]) > room or len(chunks[-1]) == MAX_ITEMS:
                chunks.append([])
                used = 0
            chunks[-1].append(item)
            used += len(item[0])
    return [_request(chunk, qualifier) for chunk in chunks if chunk]


def _request(items: list[_Item], qualifier: bytes) -> Request:
    if len(items) == 1 and items[0][2].size_bytes == 1:
        # An S7-1200 answers a single byte in a form of its own, which cannot be told from others
        # for certain: asked for twice it is a list like any other.
        items = items * 2
    payload = struct.pack(">I", 0)
    payload += encode_uint32_vlq(len(items))
    payload += encode_uint32_vlq(sum(count for _, count, _ in items))
    payload += b"".join(address for address, _, _ in items)
    payload += qualifier + struct.pack(">I", 0)
    return Request(payload, [piece for _, _, piece in items])


def values_of(
    plan: SymbolPlan, replies: Sequence[list[Sent | int]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and reasons of a scan: one of both for each tag, by name. ``replies`` are those to
    ``plan.requests``, in order.
    """
    raws = [bytearray(tag.type.size_bytes) for tag in plan.tags]
    reasons = {number: error.reason for number, error in plan.refused.items()}
    for request, reply in zip(plan.requests, replies, strict=True):
        for piece, sent in zip(request.pieces, reply, strict=True):
            if isinstance(sent, int):
                reasons[piece.tag] = refusal(sent)
            elif not piece.take(sent, raws[piece.tag]):
                reasons.setdefault(piece.tag, TYPE_DIFFERS)
    values: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for number, (tag, raw) in enumerate(zip(plan.tags, raws, strict=True)):
        if (reason := reasons.get(number)) is None:
            try:
                values[tag.name] = tag.decode(bytes(raw))
                continue
            except BadValue as e:
                reason = e.reason
        bad[tag.name] = reason
    return values, bad


def refusal(code: int) -> str:
    """The CPU's code for a refused item, as a word for ``bad``."""
    # The low 16 bits are a signed error; what else is in it says which part of the CPU refuses.
    error = code & 0xFFFF
    return {0xFFF4: "unknown_symbol"}.get(error, f"refused_{error:04x}")
