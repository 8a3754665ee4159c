"""A record's bytes -> the JSON object of its values, without a Python object for each of them.

Only where ``_native.c`` is compiled, and for records of which nobody asks single values: 54 µs for
1,000 REALs that are all new, in a reader whose caches went cold between two scans; decoding them
(services/s7/decode.py) and dumping the dict takes 160. The text is the same to the letter
(tests/unit/s7/test_encode.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from services.s7.decode import Record
from services.s7.field import Field
from services.s7.real import IS_COMPILED, not_finite, shorten_one
from services.s7.types import ELEMENTARY

if IS_COMPILED:
    from services.s7 import _native

# As ``struct member`` in _native.c: place, end of the name, kind, bit, bytes.
_MEMBER = struct.Struct("=IIcBBx")
_BOOL, _PIECE = b"?", b"p"


def pays_for(fields: Sequence[Field]) -> bool:
    """Whether most of these fields are of kinds that are encoded as they stand."""
    return IS_COMPILED and 2 * sum(bool(_kind(f)) for f in fields) >= len(fields)


def _kind(f: Field) -> bytes:
    """A field's kind where it is encoded as it stands; else b"": it is decoded first."""
    t = f.s7_type
    if t.dims or t.is_string or f.scale is not None:
        return b""
    if t.base in ("BOOL", "REAL"):
        return _BOOL if t.base == "BOOL" else b"f"
    return ELEMENTARY[t.base].code.encode()


class Encoded(Mapping[str, Any]):
    """One record's values at one time. ``json`` is their object; each alone is decoded for who asks
    for it.
    """

    __slots__ = ("_count", "_decoded", "_encoder", "_mark", "_part", "json")

    def __init__(
        self, encoder: Encoder, part: bytes, json: bytes, count: int, pieces: list[bytes | None]
    ) -> None:
        self.json = json
        self._encoder = encoder
        self._part = part
        self._count = count
        self._mark = pieces
        self._decoded: dict[str, Any] | None = None

    def _values(self) -> dict[str, Any]:
        if self._decoded is None:
            self._decoded = self._encoder.decode(self._part)
        return self._decoded

    def __getitem__(self, name: str) -> Any:
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        """Of one encoder's by their bytes: bytes between the fields do not count."""
        if isinstance(other, Encoded) and other._encoder is self._encoder:
            masked = self._encoder.masked
            return self._mark == other._mark and masked(self._part) == masked(other._part)
        return self._values() == other

    __hash__ = None  # type: ignore[assignment]


class Encoder:
    """Does for one record what ``Record`` does: ``values`` and ``bad`` of the last image."""

    def __init__(self, fields: Sequence[Field], base: int = 0) -> None:
        self.base = base
        self.fields = list(fields)
        self.size_bytes = max(f.byte + f.size_bytes for f in fields)
        self._last: bytes | None = None
        self._record: Record | None = None
        kinds = [_kind(f) for f in fields]
        rest = [f for f, kind in zip(fields, kinds, strict=True) if not kind]
        self._rest = Record(rest) if rest else None
        self._rest_names = [f.name for f in rest]
        names, members, piece = b"", b"", 0
        mask = bytearray(self.size_bytes)
        for f, kind in zip(fields, kinds, strict=True):
            names += orjson.dumps(f.name) + b":"
            if kind:
                members += _MEMBER.pack(f.byte, len(names), kind, f.bit, f.size_bytes)
                for i in range(f.byte, f.byte + f.size_bytes):
                    mask[i] |= 1 << f.bit if kind == _BOOL else 0xFF
            else:
                members += _MEMBER.pack(piece, len(names), _PIECE, 0, 0)
                piece += 1
        self._names, self._members = names, members
        self._mask = int.from_bytes(mask)
        self.values: Encoded = Encoded(self, b"", b"{}", 0, [])
        self.bad: dict[str, str] = {}

    def masked(self, part: bytes) -> int:
        """The bits of ``part`` that are values as they stand."""
        return int.from_bytes(part) & self._mask

    def decode(self, part: bytes) -> dict[str, Any]:
        """Every value, one by one."""
        if self._record is None:
            self._record = Record(self.fields)
        self._record.changed(part)
        return dict(self._record.values)

    def changed(self, image: bytes) -> bool:
        """Encodes ``image`` if its bytes are others than before; whether they were."""
        part = image[self.base : self.base + self.size_bytes]
        if part == self._last:
            return False
        self._last = part
        pieces: list[bytes | None] = []
        reasons: dict[str, str] = {}
        if self._rest is not None:
            self._rest.changed(part)
            values, reasons = self._rest.values, self._rest.bad
            pieces = [
                orjson.dumps(values[name]) if name in values else None for name in self._rest_names
            ]
        json, missing = _native.encode(part, self._members, self._names, pieces, _other)
        self.bad = {}
        for n in missing:
            f = self.fields[n]
            self.bad[f.name] = reasons.get(f.name) or not_finite(part, f.byte)
        count = len(self.fields) - len(missing)
        self.values = Encoded(self, part, json, count, pieces)
        return True

    def forget(self) -> None:
        """Encodes the next image whatever its bytes."""
        self._last = None


def _other(raw: int) -> bytes | None:
    """A REAL that is no plain number."""
    value = shorten_one(raw)
    return None if value is None else orjson.dumps(value)
