"""Absolute addresses, in every spelling that engineers use, English and German mnemonics.

``DB1.DBX0.0`` ``DB1.DBB2`` ``DB1.DBW4:INT`` ``DB1.DBD0:REAL`` · ``DB1,REAL8`` ``DB1,X0.0``
``DB1,STRING10.20`` · ``M10.3`` ``MB5`` ``MW20:INT`` ``MD4:REAL`` · ``I0.0`` = ``E0.0`` ·
``Q1.2`` = ``A1.2`` · ``T5`` · ``C3`` = ``Z3`` · ``V10.3`` ``VB5`` ``VW10:INT`` ``VD4:REAL``, the V
memory of a LOGO! or S7-200, which they give as DB1. Without a type, B W D are BYTE, WORD and DWORD.
Any letter case, ``%`` allowed.
"""

from __future__ import annotations

import re

from services.s7.field import Area, Field
from services.s7.types import S7Type, TypeNameError, parse_type

MAX_BYTE = 65_535
# The longest type has some 40; Python would refuse to read thousands of digits.
MAX_CHARACTERS = 100
# Letter -> area and DB number.
_AREAS: dict[str, tuple[Area, int]] = {
    "M": ("M", 0), "F": ("M", 0), "I": ("I", 0), "E": ("I", 0), "Q": ("Q", 0), "A": ("Q", 0),
    "V": ("DB", 1),
}  # fmt: skip
_WIDTH_BYTES = {"B": 1, "W": 2, "D": 4, "L": 8}
_WIDTH_TYPE = {"B": "BYTE", "W": "WORD", "D": "DWORD", "L": "LWORD"}
# The short names of the comma form (node-red and Telegraf users know it).
_COMMA_TYPES = {
    "X": "BOOL", "B": "BYTE", "BYTE": "BYTE", "C": "CHAR", "I": "INT", "W": "WORD", "DI": "DINT",
    "DW": "DWORD", "R": "REAL", "S": "STRING", "LR": "LREAL",
}  # fmt: skip

_DB = re.compile(r"DB(\d+)[.,]DB([XBWDL])(\d+)(?:\.(\d+))?")
_COMMA = re.compile(r"DB(\d+),([A-Z_][A-Z0-9_]*?)(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_AREA_BIT = re.compile(r"([MFIEQAV])X?(\d+)\.(\d+)")
_AREA = re.compile(r"([MFIEQAV])([BWDL])(\d+)")
_NUMBERED = re.compile(r"([TCZ])(\d+)")
_NO_BIT = re.compile(r"([MFIEQAV])(\d+)")
_EXAMPLES = "e.g. DB1.DBX0.0, DB1.DBW4:INT, DB1.DBD0:REAL, DB1,REAL8, M10.3, MW20:INT, T5"


class AddressError(ValueError):
    """No address of ours; ``hint`` says how to mend it."""

    def __init__(self, message: str, hint: str = _EXAMPLES) -> None:
        self.hint = hint
        super().__init__(message)


def parse_address(text: str, *, name: str = "") -> Field:
    """The field at an address. Raises AddressError."""
    if len(text) > MAX_CHARACTERS:
        raise AddressError(f"{text[:20]}… is no address")
    place, colon, type_text = text.strip().lstrip("%").partition(":")
    place = re.sub(r"\s+", "", place).upper()
    wanted = None
    if colon:
        try:
            wanted = parse_type(type_text)
        except TypeNameError as e:
            raise AddressError(f"{text!r}: {e}", e.hint) from None
    for pattern, make in (
        (_DB, _data_block),
        (_COMMA, _comma),
        (_AREA_BIT, _area_bit),
        (_AREA, _area),
        (_NUMBERED, _numbered),
    ):
        if match := pattern.fullmatch(place):
            field = make(match, wanted, text)
            break
    else:
        if match := _NO_BIT.fullmatch(place):
            hint = f"e.g. {place}.0 for a bit, {match[1]}W{match[2]}:INT for an INT"
            raise AddressError(f"{text!r}: which bit, or how wide?", hint)
        raise AddressError(f"{text!r} is no address")
    if field.area == "DB" and not 1 <= field.db <= 65_535:
        raise AddressError(f"{text!r}: there is no DB{field.db}", "DB numbers are 1 to 65535")
    if field.byte + field.size_bytes - 1 > MAX_BYTE:
        hint = "mend the offset; S7 gives 64 KiB of an area or of a block with standard access"
        raise AddressError(f"{text!r} reaches past byte {MAX_BYTE}", hint)
    field.name = name
    return field


def _bit(text: str, digits: str) -> int:
    if int(digits) > 7:
        raise AddressError(f"{text!r}: a byte has no bit {digits}", "bits are 0 to 7")
    return int(digits)


def _bool(area: Area, db: int, byte: str, bit: str, wanted: S7Type | None, text: str) -> Field:
    """A BOOL, or an array of them, which begins at bit 0."""
    t = wanted or S7Type("BOOL")
    if t.dims and int(bit):
        raise AddressError(f"{text!r}: an array begins at bit 0", f"write bit 0: {byte}.0")
    return Field("", str(t), area, db, int(byte), _bit(text, bit))


def _sized(wanted: S7Type | None, width: str, text: str) -> str:
    """The type of a B, W, D or L address; a scalar must be of that width."""
    if wanted is None:
        return _WIDTH_TYPE[width]
    width_bytes = _WIDTH_BYTES[width]
    # Longer things (strings, arrays, DTL) are addressed by their first byte, in any width.
    if wanted.base == "BOOL" and not wanted.dims:
        raise AddressError(f"{text!r}: a BOOL needs a bit", "e.g. DB1.DBX0.0, M10.3")
    if wanted.dims or wanted.is_string:
        return str(wanted)
    if wanted.size_bytes in (1, 2, 4) and wanted.size_bytes != width_bytes:
        fits = next(w for w, n in _WIDTH_BYTES.items() if n == wanted.size_bytes)
        hint = f"write DB{fits}, M{fits} or V{fits}, or another type"
        raise AddressError(f"{text!r}: {wanted} is no {width_bytes}-byte type", hint)
    return str(wanted)


def _data_block(match: re.Match[str], wanted: S7Type | None, text: str) -> Field:
    db, width, byte, bit = match.groups()
    if width == "X":
        if bit is None:
            if wanted is None or (wanted.base == "BOOL" and not wanted.dims):
                raise AddressError(f"{text!r}: which bit?", f"e.g. DB{db}.DBX{byte}.0")
            return Field("", str(wanted), "DB", int(db), int(byte))
        if wanted is not None and wanted.base != "BOOL":
            if int(bit):
                raise AddressError(f"{text!r}: {wanted} does not begin at a bit", "write DBB, DBW")
            return Field("", str(wanted), "DB", int(db), int(byte))
        return _bool("DB", int(db), byte, bit, wanted, text)
    if bit is not None:
        raise AddressError(f"{text!r}: only DBX has a bit", f"write DB{db}.DBX{byte}.{bit}")
    return Field("", _sized(wanted, width, text), "DB", int(db), int(byte))


def _comma(match: re.Match[str], wanted: S7Type | None, text: str) -> Field:
    db, short, byte, second, third = match.groups()
    if wanted is not None:
        raise AddressError(f"{text!r} names two types", "leave out what follows the colon")
    try:
        t = parse_type(_COMMA_TYPES.get(short, short))
    except TypeNameError as e:
        raise AddressError(f"{text!r}: {e}", e.hint) from None
    if t.base == "BOOL":
        if second is None:
            raise AddressError(f"{text!r}: which bit?", f"e.g. DB{db},X{byte}.0")
        return Field("", "BOOL", "DB", int(db), int(byte), _bit(text, second))
    if third is not None or (second is not None and not t.is_string and int(second) < 1):
        raise AddressError(f"{text!r} is no address")
    if second is not None:
        # DB1,STRING10.20: 20 characters; DB1,INT10.4: 4 of them.
        spelled = f"{t.base}[{second}]" if t.is_string else f"{t.base}[0..{int(second) - 1}]"
        try:
            t = parse_type(spelled)
        except TypeNameError as e:
            raise AddressError(f"{text!r}: {e}", e.hint) from None
    return Field("", str(t), "DB", int(db), int(byte))


def _area_bit(match: re.Match[str], wanted: S7Type | None, text: str) -> Field:
    letter, byte, bit = match.groups()
    if wanted is not None and wanted.base != "BOOL":
        raise AddressError(f"{text!r}: {wanted} does not begin at a bit", f"write {letter}W{byte}")
    return _bool(*_AREAS[letter], byte, bit, wanted, text)


def _area(match: re.Match[str], wanted: S7Type | None, text: str) -> Field:
    letter, width, byte = match.groups()
    return Field("", _sized(wanted, width, text), *_AREAS[letter], int(byte))


def _numbered(match: re.Match[str], wanted: S7Type | None, text: str) -> Field:
    letter, number = match.groups()
    area: Area = "T" if letter == "T" else "C"
    natural = "TIMER" if area == "T" else "COUNTER"
    if wanted is not None and str(wanted) not in (natural, "S5TIME", "WORD"):
        raise AddressError(f"{text!r}: it holds a {natural}", f"write {letter}{number}")
    t = natural if wanted is None else str(wanted)
    return Field("", t, area, 0, int(number) * 2)
