"""Fields, and the layouts they come from: YAML data (already parsed) -> a flat list of ``Field``.

A layout file (CONTRACT §5) describes one record of a data block, with classic (non-optimised)
placement: BOOLs pack from bit 0 up; bytes go anywhere; all else to even bytes; structs and arrays
begin even, and what follows them does too. An ``offset:`` says where a member lies, counted from
its struct's first byte (as STEP 7 shows it); without one it follows its predecessor by these rules.

A member with ``fields:`` is a struct; ``type: STRUCT`` may say so, ``type: STRUCT[1..4]`` or
``array: "1..4"`` repeats it.

Structs flatten to dotted names (``motor.corrente``), arrays of structs to ``eixo.1.posicao``; an
array of an elementary type stays one field whose value is a JSON array.
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from services.s7.address import AddressError, parse_address
from services.s7.field import Field
from services.s7.types import S7Type, TypeNameError, parse_type

__all__ = ["Field", "LayoutError", "LayoutProblem", "resolve_inline", "resolve_layout"]

BLOCK_BYTES = 65_536
# As many as a block has bytes: two thousand structs of BOOLs need as many.
MAX_FIELDS = 65_536
# Who has made more is told these first.
MAX_PROBLEMS = 500
FIELD_NAME = re.compile(r"[\w.\-]{1,128}")
_LAYOUT_KEYS = {"name", "description", "record", "fields"}
_MEMBER_KEYS = {"name", "description", "type", "offset", "unit", "scale", "deadband", "encoding"}
_STRUCT_KEYS = {"name", "description", "type", "offset", "fields", "array"}
# What only a field that lies in its group's block has.
_BLOCK_FORM = frozenset(("type", "offset", "fields", "array"))
_INLINE_KEYS = {"name", "description", "address", "unit", "scale", "deadband", "encoding"}
_NUMERIC = frozenset(
    (
        *("BYTE", "USINT", "SINT", "INT", "UINT", "WORD", "DINT", "UDINT", "DWORD", "LINT"),
        *("ULINT", "LWORD", "REAL", "LREAL", "TIME", "LTIME", "S5TIME", "TIMER", "COUNTER"),
    )
)
_TEXT = frozenset(("CHAR", "STRING"))
_RANGE = re.compile(r"\s*(-?\d{1,9})\s*\.\.\s*(-?\d{1,9})\s*")
_STRUCT_TYPE = re.compile(r"\s*STRUCT\s*(?:\[([^\]]*)\])?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LayoutProblem:
    """One mistake: ``path`` as in ``fields[3].type``."""

    path: str
    message: str
    hint: str = ""


class LayoutError(ValueError):
    """A layout or field list is wrong. Carries every problem found."""

    def __init__(
        self, problems: list[LayoutProblem], fields: list[Field], names: set[str] | None
    ) -> None:
        self.problems = problems
        self.fields = fields
        """Those that are right, wherever the others belong."""
        self.names = names
        """Of all fields, right or wrong; None where not all are known."""
        super().__init__("; ".join(f"{p.path}: {p.message}" for p in problems))


def resolve_layout(doc: Any, *, db: int | None) -> list[Field]:
    """The fields of one record, offsets from its first byte, in the order of the file.

    ``doc`` is the parsed layout file, ``db`` the block it is read from. Raises LayoutError with
    every problem.
    """
    walk = Walk(db or 0)
    if not isinstance(doc, dict):
        walk.bad("", "is no layout", "begin with `name:` and `fields:`")
    else:
        walk.unknown_keys(doc, _LAYOUT_KEYS, "")
        end_bytes = walk.members(doc.get("fields"), "fields", "", 0)
        _check_record(walk, doc.get("record"), end_bytes)
    return walk.done()


def _check_record(walk: Walk, record: Any, end_bytes: int) -> None:
    if record is None:
        return
    if not isinstance(record, int) or isinstance(record, bool) or record < 1:
        walk.bad("record", f"is {record!r}", "give the record's size in bytes")
    elif end_bytes > record:
        message = f"is {record}, but the fields reach byte {end_bytes - 1}"
        walk.bad("record", message, f"set `record: {end_bytes + end_bytes % 2}` or mend an offset")


def resolve_inline(fields: Any, *, db: int | None = None) -> list[Field]:
    """The fields of a group given as ``fields:``: each has an ``address:``, or, in block ``db``,
    stands as in a layout, with ``type:`` and ``offset:``. A list may hold both kinds; without
    ``offset:`` a field follows the one before of its kind.

    Raises LayoutError with every problem.
    """
    walk = Walk(db or 0)
    if not isinstance(fields, list):
        walk.bad("", "is no list of fields", 'write - {name: x, address: "DB1.DBD0:REAL"}')
        fields = []
    for i, member in enumerate(fields):
        path = f"[{i}]"
        is_mapping = isinstance(member, dict)
        if is_mapping and not _BLOCK_FORM.isdisjoint(member):
            walk.in_block(member, path, known_db=db is not None)
        elif walk.is_member(member, path, _INLINE_KEYS, "address"):
            walk.addressed(member, path)
    return walk.done()


class Walk:
    """Collects fields and problems."""

    def __init__(self, db: int) -> None:
        self.db = db
        self.at_bits = 0
        """Where the next one lies of a group's own fields that does not say so."""
        self.fields: list[Field] = []
        self.paths: list[str] = []
        self.problems: list[LayoutProblem] = []
        self.firm: list[Field] = []
        """Whose place does not hang on others."""
        self.names: set[str] | None = set()
        """Of fields that are wrong; None where some of them are not known."""

    def done(self) -> list[Field]:
        """The fields. Raises LayoutError where something is wrong."""
        self.check_names()
        if not self.problems:
            return self.fields
        names = None if self.names is None else self.names | {f.name for f in self.fields}
        raise LayoutError(self.problems, self.firm, names)

    def bad(self, path: str, message: str, hint: str = "") -> None:
        self.problems.append(LayoutProblem(path, message, hint))
        if len(self.problems) == MAX_PROBLEMS:
            raise LayoutError(self.problems, [], None)

    def unknown_keys(self, member: dict[Any, Any], known: set[str], path: str) -> None:
        for key in member:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
                hint = (
                    f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
                )
                self.bad(f"{path}.{key}" if path else str(key), "unknown key", hint)

    def is_member(
        self, member: Any, path: str, known: set[str], needs: str, prefix: str = ""
    ) -> bool:
        """Whether it has a name and what else it needs; says so where not."""
        if not isinstance(member, dict):
            self.names = None
            self.bad(path, f"is {reprlib.repr(member)}", f"a field is {{name: …, {needs}: …}}")
            return False
        self.unknown_keys(member, known, path)
        missing = [k for k in ("name", needs) if member.get(k) is None]
        for key in missing:
            self.bad(path, f"`{key}` is missing", f"add `{key}:`")
        name = str(member.get("name"))
        if "name" in missing or needs == "fields":
            self.names = None
        elif not FIELD_NAME.fullmatch(name):
            self.names = None
            hint = "letters, digits, `_`, `-` and `.`, up to 128"
            self.bad(f"{path}.name", f"{reprlib.repr(name)} is no valid field name", hint)
            return False
        if missing:
            self.wrong(prefix + name)
            return False
        return True

    def wrong(self, name: str) -> None:
        """Remembers the name of a field that is wrong."""
        if self.names is not None:
            self.names.add(name)

    def addressed(self, member: dict[str, Any], path: str) -> None:
        """A field with an ``address:``."""
        name = str(member["name"])
        try:
            field = parse_address(str(member["address"]), name=name)
        except AddressError as e:
            self.wrong(name)
            self.bad(f"{path}.address", str(e), e.hint)
            return
        self.add(field, member, path, firm=True)

    def in_block(self, member: dict[str, Any], path: str, *, known_db: bool) -> None:
        """A field of a group's list that is given as in a layout."""
        if "address" in member:
            form = next(iter(sorted(_BLOCK_FORM & member.keys())))
            self.wrong(str(member.get("name")))
            message = f"has both `address:` and `{form}:`"
            hint = 'either address: "DB1.DBD0:REAL", or in the block of `db:` type and offset'
            self.bad(path, message, hint)
            return
        if not known_db:
            self.wrong(str(member.get("name")))
            hint = 'give the group `db:`, or the field an address: "DB1.DBD0:REAL"'
            self.bad(path, "lies in no block: `type:` and `offset:` need the group's `db:`", hint)
            return
        self.at_bits = self.member(member, path, "", 0, self.at_bits)

    def members(self, members: Any, path: str, prefix: str, base_bits: int) -> int:
        """Places members from ``base_bits`` on; returns the byte after the last one."""
        if not isinstance(members, list) or not members:
            self.names = None
            self.bad(path, "holds no field", "list at least one {name, type}")
            return base_bits // 8
        at_bits = base_bits
        end_bits = base_bits
        for i, member in enumerate(members):
            at_bits = self.member(member, f"{path}[{i}]", prefix, base_bits, at_bits)
            end_bits = max(end_bits, at_bits)
        return (end_bits + 7) // 8

    def member(self, member: Any, path: str, prefix: str, base_bits: int, at_bits: int) -> int:
        """Places one member from ``at_bits`` on, or at its offset; returns the bit after it."""
        is_struct = isinstance(member, dict) and "fields" in member
        known = _STRUCT_KEYS if is_struct else _MEMBER_KEYS
        needs = "fields" if is_struct else "type"
        if not self.is_member(member, path, known, needs, prefix):
            return at_bits
        place = self._struct if is_struct else self._scalar
        return place(member, path, prefix, base_bits, at_bits)

    def _start(
        self, member: dict[str, Any], path: str, base_bits: int, at_bits: int, t: S7Type | None
    ) -> int:
        """The first bit of a member: its ``offset:``, else the next place its type may take."""
        is_bit = t is not None and t.base == "BOOL" and not t.dims
        align = 2 if t is None else t.align
        if "offset" not in member:
            return at_bits if is_bit else -(-at_bits // (8 * align)) * 8 * align
        offset = parse_offset(member["offset"])
        if offset is None:
            hint = "bytes, e.g. 6; for a BOOL byte.bit, e.g. 0.2"
            self.bad(f"{path}.offset", f"{member['offset']!r} is no offset", hint)
            return at_bits
        byte, bit = offset
        if bit and not is_bit:
            hint = "only a BOOL has a bit"
            self.bad(f"{path}.offset", f"{member['offset']} names a bit", hint)
        elif byte % align:
            kind = str(t) if t is not None else "a struct"
            hint = f"{kind} lies at an even byte in non-optimised blocks"
            self.bad(f"{path}.offset", f"byte {byte} is odd", hint)
        return base_bits + byte * 8 + bit

    def _scalar(
        self, member: dict[str, Any], path: str, prefix: str, base_bits: int, at_bits: int
    ) -> int:
        name = prefix + str(member["name"])
        try:
            t = parse_type(str(member["type"]))
        except TypeNameError as e:
            self.wrong(name)
            self.bad(f"{path}.type", str(e), e.hint)
            return at_bits
        problems = len(self.problems)
        start = self._start(member, path, base_bits, at_bits, t)
        byte, bit = divmod(start, 8)
        if byte + t.size_bytes > BLOCK_BYTES:
            self.wrong(name)
            self.bad(f"{path}.offset", f"{name} reaches byte {byte + t.size_bytes - 1}",
                     f"a block ends at byte {BLOCK_BYTES - 1}")  # fmt: skip
            return at_bits
        firm = len(self.problems) == problems and "offset" in member and not prefix
        self.add(Field(name, str(t), "DB", self.db, byte, bit), member, path, firm=firm)
        if t.base == "BOOL" and not t.dims:
            return start + 1
        end = byte + t.size_bytes
        return 8 * (end + end % 2 if t.dims else end)

    def _struct(
        self, member: dict[str, Any], path: str, prefix: str, base_bits: int, at_bits: int
    ) -> int:
        start = self._start(member, path, base_bits, at_bits, None)
        for index in self._elements(member, path):
            name = f"{prefix}{member['name']}.{index}"
            problems = len(self.problems)
            end_bytes = self.members(member["fields"], f"{path}.fields", name, start)
            start = 8 * (end_bytes + end_bytes % 2)
            if len(self.problems) > problems:
                if index:
                    self.names = None
                break  # the same mistakes in each element
        return start

    def _elements(self, member: dict[str, Any], path: str) -> list[str]:
        """What follows a struct's name: nothing, or ``1.`` to ``4.`` (``1.2.`` with two
        dimensions, the last running fastest) where it is an array.
        """
        key, given = "array", member.get("array")
        if "type" in member:
            match = _STRUCT_TYPE.fullmatch(str(member["type"]))
            if match is None or (match[1] is not None and given is not None):
                hint = 'a member with `fields:` is a STRUCT; an array of them "STRUCT[1..4]"'
                self.names = None
                self.bad(f"{path}.type", f"{member['type']!r} is no struct", hint)
                return []
            if match[1] is not None:
                key, given = "type", match[1]
        if given is None:
            return [""]
        names = [""]
        for part in str(given).split(","):
            match = _RANGE.fullmatch(part)
            if match is None or int(match[1]) > int(match[2]):
                self.names = None
                self.bad(f"{path}.{key}", f"{part.strip()!r} is no range", 'write "1..4"')
                return []
            if len(names) * (int(match[2]) - int(match[1]) + 1) > BLOCK_BYTES:
                self.names = None
                self.bad(f"{path}.{key}", "has more elements than a block has bytes",
                         "mend the range")  # fmt: skip
                return []
            indices = range(int(match[1]), int(match[2]) + 1)
            names = [f"{name}{index}." for name in names for index in indices]
        return names

    def add(self, field: Field, member: dict[str, Any], path: str, *, firm: bool) -> None:
        """Takes the options common to layouts and inline fields. ``firm``: its place is certain,
        whatever is wrong elsewhere.
        """
        if len(self.fields) == MAX_FIELDS:
            hint = "read arrays, or make two layouts"
            self.bad("fields", f"are more than {MAX_FIELDS:,}", hint)
            raise LayoutError(self.problems, [], None)
        t = parse_type(field.type)
        field.unit = _text(member.get("unit"))
        field.description = _text(member.get("description"))
        if "scale" in member:
            field.scale = self._scale(member["scale"], t, f"{path}.scale")
        if "deadband" in member:
            field.deadband = self._deadband(member["deadband"], t, f"{path}.deadband")
        if "encoding" in member:
            field.encoding = self._encoding(member["encoding"], t, f"{path}.encoding")
        self.fields.append(field)
        self.paths.append(path)
        if firm:
            self.firm.append(field)

    def _scale(self, given: Any, t: S7Type, path: str) -> tuple[float, float] | None:
        hint = "{factor: 0.1, bias: 0} or {raw: [0, 27648], eu: [0, 100]}"
        if t.base not in _NUMERIC:
            self.bad(path, f"{t} is no number", "remove `scale:`")
            return None
        if _is_number(given):
            given = {"factor": given}
        if isinstance(given, dict) and set(given) <= {"factor", "bias"}:
            factor, bias = given.get("factor", 1), given.get("bias", 0)
            if _is_number(factor) and _is_number(bias) and factor != 0:
                return float(factor), float(bias)
        elif isinstance(given, dict) and set(given) == {"raw", "eu"}:
            raw, eu = given["raw"], given["eu"]
            if _is_pair(raw) and _is_pair(eu) and raw[0] != raw[1] and eu[0] != eu[1]:
                factor = (eu[1] - eu[0]) / (raw[1] - raw[0])
                bias = eu[0] - raw[0] * factor
                if _is_number(factor) and _is_number(bias):
                    return factor, bias
        self.bad(path, f"{given!r} is no scale", hint)
        return None

    def _deadband(self, given: Any, t: S7Type, path: str) -> dict[str, float] | None:
        if t.base not in _NUMERIC:
            self.bad(path, f"{t} is no number", "remove `deadband:`: any change is published")
            return None
        if _is_number(given) and given >= 0:
            return {"abs": float(given)}
        if isinstance(given, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?\s*%", given):
            return {"percent": float(given.rstrip("% "))}
        if isinstance(given, dict) and len(given) == 1 and set(given) <= {"abs", "percent"}:
            ((kind, value),) = given.items()
            if _is_number(value) and value >= 0:
                return {kind: float(value)}
        self.bad(path, f"{given!r} is no deadband", "0.5, 2%, {abs: 0.5} or {percent: 2}")
        return None

    def _encoding(self, given: Any, t: S7Type, path: str) -> str | None:
        if t.base not in _TEXT:
            self.bad(path, f"{t} has no encoding", "only STRING and CHAR do")
            return None
        try:
            "A".encode(str(given))
        except (LookupError, ValueError):
            self.bad(path, f"unknown encoding {given!r}", "latin-1, cp1252, utf-8, …")
            return None
        return str(given)

    def check_names(self) -> None:
        """Field names are unique in their group, and those of arrays' elements with them: databases
        and Sparkplug call them ``array.0``.
        """
        seen: set[str] = set()
        arrays = {field.name for field in self.fields if field.s7_type.dims}
        for field, path in zip(self.fields, self.paths, strict=True):
            if field.name in seen:
                self.bad(f"{path}.name", f"{field.name!r} stands twice", "rename one")
            seen.add(field.name)
            head, _, number = field.name.rpartition(".")
            while head and number.isdigit():
                if head in arrays:
                    text = f"{field.name!r} is what an element of the array {head!r} is called"
                    self.bad(f"{path}.name", text, "rename one")
                head, _, number = head.rpartition(".")


def parse_offset(given: Any) -> tuple[int, int] | None:
    """(byte, bit) of ``6``, ``0.2`` or ``"10.3"``; None for anything else.

    YAML reads 0.2 as a number; bits end at 7, so one digit always is the bit.
    """
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    match = re.fullmatch(r"(\d{1,9})(?:\.([0-7]))?", str(given).strip())
    if match is None or int(match[1]) >= BLOCK_BYTES:
        return None
    return int(match[1]), int(match[2] or 0)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
