"""Columns as bytes, and back bit for bit.

A body is one letter that says how, what that needs, and the bytes, deflated where that helps.
Numbers are shuffled (all first bytes, all second ones, …): neighbours then resemble one another.
What each form saves was measured: docs/architecture.md.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.historian.shapes import Bools, Floats, Ints
from services.historian.table import Column

LEVEL = 6
# Below that a deflate stream's own bytes are all that there is.
_SMALL = 24
_DECIMALS = 6
_POWERS = 10.0 ** np.arange(23)
_EXACT = 2.0**53


class Damaged(ValueError):
    """Bytes that are no column."""


def encode(column: Column, level: int = LEVEL) -> bytes:
    """The bytes of a column. ``level``: zlib's."""
    values, present = column
    if present is None:
        return b"\0" + _encode(values, level)
    mask = _deflated(np.packbits(present).tobytes(), level)
    return b"\1" + len(mask).to_bytes(4, "little") + mask + _encode(values[present], level)


def decode(body: bytes, rows: int) -> Column:
    """The column; raises Damaged."""
    try:
        if body[:1] == b"\0":
            values = _decode(body[1:])
            if len(values) != rows:
                raise Damaged(f"{len(values)} values instead of {rows}")
            return Column(values, None)
        size = int.from_bytes(body[1:5], "little")
        bits = np.frombuffer(_inflated(body[5 : 5 + size]), np.uint8)
        present: Bools = np.unpackbits(bits, count=rows).astype(np.bool_)
        inner = _decode(body[5 + size :])
        values = np.zeros(rows, inner.dtype)
        if inner.dtype.hasobject:
            values.fill(None)
        values[present] = inner
        return Column(values, present)
    except Damaged:
        raise
    except (ValueError, IndexError, zlib.error, TypeError) as e:
        raise Damaged(str(e)) from None


# --- of values ---------------------------------------------------------------------------------


def _encode(values: NDArray[Any], level: int) -> bytes:
    if values.dtype == np.bool_:
        return b"b" + len(values).to_bytes(4, "little") + _deflated(np.packbits(values), level)
    if values.dtype == np.int64:
        return b"i" + _ints(values, level)
    if values.dtype == np.float64:
        return _floats(values, level)
    return _objects(values, level)


def _decode(body: bytes) -> NDArray[Any]:
    kind, rest = body[:1], body[1:]
    if kind == b"b":
        bits = np.frombuffer(_inflated(rest[4:]), np.uint8)
        return np.unpackbits(bits, count=int.from_bytes(rest[:4], "little")).astype(np.bool_)
    if kind == b"i":
        return _read_ints(rest)
    if kind == b"d":
        return np.asarray(_read_ints(rest[1:]) / _POWERS[rest[0]], np.float64)
    if kind == b"r":
        return widened(_read_ints(rest).astype(np.int32).view(np.float32))
    if kind == b"f":
        return _read_ints(rest).view(np.float64)
    if kind == b"t":
        size = int.from_bytes(rest[:4], "little")
        words = np.empty(0, object)
        given = orjson.loads(_inflated(rest[4 : 4 + size]))
        words = np.empty(len(given), object)
        words[:] = given
        return words[_read_ints(rest[4 + size :])]
    if kind == b"o":
        return _object_array(orjson.loads(_inflated(rest)))
    raise Damaged(f"{kind!r} is no kind of column")


def _floats(values: Floats, level: int) -> bytes:
    """As decimals of one scale, as 32-bit floats, or whole: what is exact and smallest."""
    forms = []
    if (scaled := _as_decimals(values)) is not None:
        forms.append(b"d" + bytes([scaled[0]]) + _ints(scaled[1], level))
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    if not forms and same(widened(short[:8]), values[:8]) and same(widened(short), values):
        forms.append(b"r" + _ints(short.view(np.int32).astype(np.int64), level))
    if not forms:
        forms.append(b"f" + _ints(values.view(np.int64), level))
    return min(forms, key=len)


def _as_decimals(values: Floats) -> tuple[int, Ints] | None:
    """(digits behind the point, whole numbers) where that is exact for all."""
    if not len(values):
        return None
    # A sample tells soon how many there are at least.
    few = values[:: max(1, len(values) // 8)][:8, None]
    powers = _POWERS[: _DECIMALS + 1]
    with np.errstate(over="ignore", invalid="ignore"):
        fits = (np.rint(few * powers) / powers == few).all(axis=0)
    if not fits.any():
        return None
    for digits in range(int(fits.argmax()), _DECIMALS + 1):
        power = _POWERS[digits]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(values * power)
        # NaN compares as greater than nothing, so it is not below either.
        if not (np.abs(scaled) < _EXACT).all():
            return None
        whole = scaled.astype(np.int64)
        if same(whole / power, values):
            return digits, whole
    return None


def same(a: Floats, b: Floats) -> bool:
    """To the bit: -0.0 is another than 0.0."""
    return bool(np.array_equal(a.view(np.int64), b.view(np.int64)))


def widened(short: NDArray[np.float32]) -> Floats:
    """The doubles that the shortest decimals of 32-bit floats are read as, as far as plain
    arithmetic finds them (``encode`` looks whether it did).
    """
    wide = short.astype(np.float64)
    out = wide.copy()
    size = np.abs(wide)
    open_ = (size > 1e-15) & (size < 1e15)
    if not open_.any():
        return out
    exponent = np.zeros(len(wide), np.int64)
    exponent[open_] = np.floor(np.log10(size[open_])).astype(np.int64)
    for digits in range(6, 10):
        power = digits - 1 - exponent
        up, down = _POWERS[np.clip(power, 0, 22)], _POWERS[np.clip(-power, 0, 22)]
        tried = np.where(power >= 0, np.rint(wide * up) / up, np.rint(wide / down) * down)
        found = open_ & (tried.astype(np.float32) == short)
        out[found] = tried[found]
        open_ &= ~found
        if not open_.any():
            break
    return out


def _objects(values: NDArray[Any], level: int) -> bytes:
    """Text as a dictionary of its words; anything else as JSON."""
    cells = values.tolist()
    if all(type(c) is str for c in cells):
        words = dict.fromkeys(cells)
        if len(words) <= len(cells) // 2 or len(words) == 1:
            for i, word in enumerate(words):
                words[word] = i
            book = _deflated(orjson.dumps(list(words)), level)
            order = np.fromiter((words[c] for c in cells), np.int64, len(cells))
            return b"t" + len(book).to_bytes(4, "little") + book + _ints(order, level)
    return b"o" + _deflated(orjson.dumps(cells), level)


def _object_array(cells: list[Any]) -> NDArray[Any]:
    values = np.empty(len(cells), object)
    for i, cell in enumerate(cells):  # lists in it stay lists
        values[i] = cell
    return values


# --- of whole numbers --------------------------------------------------------------------------


def _ints(values: Ints, level: int) -> bytes:
    """Plain, their differences, or those of these: what spans least. Then as narrow as fits."""
    order, chosen = 0, values
    if len(values) > 2:
        once = values[1:] - values[:-1]
        twice = once[1:] - once[:-1]
        spans = (_span(values), _span(once), _span(twice))
        order = spans.index(min(spans))
        if order == 1:
            chosen = np.concatenate((values[:1], once))
        elif order == 2:
            chosen = np.concatenate((values[:1], once[:1] - values[:1], twice))
    heads, rest = chosen[:order], chosen[order:]
    low = int(rest.min()) if len(rest) else 0
    span = int(rest.max()) - low if len(rest) else 0
    width = next((w for w in (0, 1, 2, 4) if span < 1 << 8 * w), 8)
    narrow = b""
    if width:
        offset = (
            (rest.view(np.uint64) - np.uint64(low % 2**64))
            if width == 8
            else (rest - low).astype(np.uint64)
        )
        planes = offset.astype(f"<u{width}").view(np.uint8).reshape(-1, width)
        narrow = _deflated(np.ascontiguousarray(planes.T).tobytes(), level)
    head = (
        bytes([order, width])
        + len(values).to_bytes(4, "little")
        + low.to_bytes(8, "little", signed=True)
        + heads.astype("<i8").tobytes()
    )
    return head + narrow


def _span(values: Ints) -> int:
    """How far apart they lie; 0 of none."""
    return int(values.max()) - int(values.min()) if len(values) else 0


def _read_ints(body: bytes) -> Ints:
    order, width, count = body[0], body[1], int.from_bytes(body[2:6], "little")
    low = int.from_bytes(body[6:14], "little", signed=True)
    heads = np.frombuffer(body[14 : 14 + 8 * order], "<i8")
    left = count - order
    if width == 0:
        rest = np.full(left, low, np.int64)
    else:
        planes = np.frombuffer(_inflated(body[14 + 8 * order :]), np.uint8).reshape(width, left)
        narrow = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(left)
        rest = (narrow.astype(np.uint64) + np.uint64(low % 2**64)).view(np.int64)
    values = np.concatenate((heads, rest)).astype(np.int64)
    for _ in range(order):
        values = np.cumsum(values)
    return values


# --- of bytes ----------------------------------------------------------------------------------


def _deflated(data: Any, level: int) -> bytes:
    plain = bytes(data)
    if len(plain) > _SMALL:
        packed = zlib.compress(plain, level, -15)
        if len(packed) < len(plain):
            return b"z" + packed
    return b"p" + plain


def _inflated(body: bytes) -> bytes:
    return zlib.decompress(body[1:], -15) if body[:1] == b"z" else body[1:]
