"""TIA Portal ``.db``, ``.udt``, ``.scl`` and STEP 7 ``.awl`` sources: declarations only.

Grammar after Siemens, "Programming with STEP 7" (creating STL source files) and the TIA Portal
help on external source files. Keywords in any letter case; code after BEGIN is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from services.s7.importers import system_types
from services.s7.importers.lexer import Token, tokens
from services.s7.importers.model import (
    Array,
    Block,
    Bound,
    Member,
    Named,
    Place,
    Sources,
    Struct,
    Type,
    TypeDef,
    wrong,
)

# What may stand between a block's name and its declarations, each with a value …
_HEADER_VALUES = frozenset(("AUTHOR", "FAMILY", "NAME", "VERSION", "TITLE", "CODE_VERSION1"))
# … or alone.
_HEADER_FLAGS = frozenset(
    ("NON_RETAIN", "RETAIN", "READ_ONLY", "UNLINKED", "KNOW_HOW_PROTECT", "STANDARD")
)
_SECTION_FLAGS = frozenset(
    ("CONSTANT", "RETAIN", "NON_RETAIN", "DB_SPECIFIC", "PUBLIC", "PRIVATE", "PROTECTED")
)
# Order of the sections in an instance DB, whatever their order in the source.
_SECTIONS = {"VAR_INPUT": 0, "VAR_OUTPUT": 1, "VAR_IN_OUT": 2, "VAR": 3, "VAR_STAT": 3}
_NO_MEMORY = frozenset(("VAR_TEMP", "VAR_EXTERNAL"))
_NUMBERED = frozenset(("UDT", "FB", "SFB", "DB", "FC", "SFC", "OB", "SDB"))
_STRINGS = frozenset(("STRING", "WSTRING"))
# What ends such a value, where the next thing stands on the same line.
_NO_VALUE = (
    _HEADER_VALUES | _HEADER_FLAGS | _SECTIONS.keys() | _NO_MEMORY | _NUMBERED
    | {"STRUCT", "ARRAY", "CONST", "LABEL", "BEGIN"}
)  # fmt: skip
_END_OF_BLOCK = re.compile(r"END_(DATA_BLOCK|FUNCTION_BLOCK|FUNCTION|TYPE|ORGANIZATION_BLOCK)")
# A section of a kind that does not exist (VAR_STATIC), or one behind the code.
_ANY_SECTION = re.compile(r"VAR(_\w+)?|CONST")
_ATTRIBUTE = re.compile(r"\b(\w+)\s*:=\s*'([^']*)'")
# SIMATIC SD, TIA Portal's other text format (V20), writes attributes in double quotes.
_SIMATIC_SD = re.compile(r'S7_(Optimized|BlockNumber)\s*:=\s*"')


def read(text: str, file: str, into: Sources, *, classic: bool) -> None:
    """Adds what a source declares. ``classic``: STEP 7, where nothing is optimised.

    Raises SourceError at the first thing that is not understood, with its line.
    """
    if match := _SIMATIC_SD.search(text):
        raise wrong(
            Place(file, text.count("\n", 0, match.start()) + 1),
            "a SIMATIC SD document (.s7dcl) is not read",
            'in TIA Portal choose "Generate source from blocks" (.db, .udt, .scl), or export XML',
        )
    _Parser(text, file, into, classic).parse()


@dataclass(slots=True)
class _Header:
    optimized: bool | None = None
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Sections:
    members: dict[int, list[Member]] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)

    def struct(self, place: Place) -> Struct:
        members: list[Member] = []
        starts = []
        for order in sorted(self.members):
            starts.append(len(members))
            members += self.members[order]
        return Struct(tuple(members), place, tuple(starts))


class _Parser:
    def __init__(self, text: str, file: str, into: Sources, classic: bool) -> None:
        self.file, self.into, self.classic = file, into, classic
        self.is_1200 = False
        """The block at hand speaks of optimized access: it is of an S7-1200/1500."""
        self.line_offset = 0
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.tokens: list[Token] = []
        # The first comment of a line belongs to what is declared on it.
        self.comments: dict[int, str] = {}
        for token in tokens(text):
            if token.kind == "comment":
                self.comments.setdefault(token.line, token.text)
            else:
                self.tokens.append(token)
        last = self.tokens[-1].line if self.tokens else 1
        self.tokens.append(Token("end", "", last))
        self.at = 0

    # --- reading tokens ----------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    @property
    def following(self) -> Token:
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)]

    def place(self, token: Token | None = None) -> Place:
        return Place(self.file, self.line_offset + (token or self.token).line)

    def take(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        if self.token.kind in ("other", "name") and self.token.text.upper() == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str, where: str) -> Token:
        if not self.accept(text):
            self.fail(f"expected {text!r} {where}, found {self.said()}")
        return self.tokens[self.at - 1]

    def name(self, what: str) -> Token:
        if self.token.kind not in ("name", "quoted"):
            self.fail(f"expected {what}, found {self.said()}")
        return self.take()

    def said(self) -> str:
        return "the end of the file" if self.token.kind == "end" else repr(self.token.text)

    def fail(self, message: str, hint: str = "") -> None:
        raise wrong(self.place(), message, hint)

    def pragmas(self) -> dict[str, str]:
        """Skips pragmas; returns their attributes, names in lower case."""
        found: dict[str, str] = {}
        while self.token.kind == "pragma":
            found |= {k.lower(): v for k, v in _ATTRIBUTE.findall(self.take().text)}
        return found

    def skip_to(self, *words: str) -> None:
        """Skips past one of these words; the end of the file ends it too."""
        while self.token.kind != "end":
            if self.take().word in words:
                return

    # --- a file ------------------------------------------------------------------------------

    def parse(self) -> None:
        known: dict[str, Callable[[], None]] = {
            "TYPE": self.type_definition,
            "DATA_BLOCK": self.data_block,
            "FUNCTION_BLOCK": self.function_block,
            "FUNCTION": lambda: self.skip_to("END_FUNCTION"),
            "ORGANIZATION_BLOCK": lambda: self.skip_to("END_ORGANIZATION_BLOCK"),
        }
        found = False
        while self.token.kind != "end":
            parse = known.get(self.take().word)
            if parse is not None:
                parse()
                found = True
        if not found:
            hint = "a source begins with DATA_BLOCK, TYPE or FUNCTION_BLOCK; in TIA Portal choose"
            hint += ' "Generate source from blocks"'
            raise wrong(Place(self.file), "holds no data block, type or function block", hint)

    def block_name(self) -> str:
        """``"Motor"``, ``Motor``, ``DB 10``, ``DB10``: the last two as ``DB10``."""
        token = self.name("a name")
        if token.word in _NUMBERED and self.token.kind == "number":
            return f"{token.word}{self.number()}"
        return token.text

    def number(self) -> int:
        """The number of a block or type."""
        if not re.fullmatch(r"[0-9]{1,9}", self.token.text):
            self.fail(f"expected a number, found {self.said()}")
        return int(self.take().text)

    def header(self) -> _Header:
        header = _Header()
        while True:
            token = self.token
            if token.kind == "pragma":
                access = self.pragmas().get("s7_optimized_access")
                if access is not None:
                    header.optimized = access.strip().upper() == "TRUE"
                    self.is_1200 = True
            elif token.word in _HEADER_VALUES and self.following.text in (":", "="):
                self.header_value()
            elif token.word in _HEADER_FLAGS:
                self.take()
            else:
                return header

    def header_value(self) -> None:
        """``VERSION : 0.1``, ``AUTHOR : me``: to the end of the line, or to what is no value."""
        word = self.take()
        self.take()
        of_more = ("number", "other") if word.word == "VERSION" else ("name", "number", "other")
        kinds: tuple[str, ...] = (*of_more, "name", "quoted", "string")
        while self.token.line == word.line and self.token.kind in kinds:
            if self.token.word in _NO_VALUE or _END_OF_BLOCK.fullmatch(self.token.word):
                return
            self.take()
            kinds = of_more

    def type_definition(self) -> None:
        place = self.place(self.tokens[self.at - 1])
        name = self.block_name()
        self.is_1200 = False
        header = self.header()
        self.accept(":")
        body = self.type()
        self.accept(";")
        if not self.accept("END_TYPE"):
            self.fail(f"expected END_TYPE of {name!r}, found {self.said()}")
        self.into.add_type(TypeDef(name, body, place, header.optimized))

    def function_block(self) -> None:
        place = self.place(self.tokens[self.at - 1])
        name = self.block_name()
        self.is_1200 = False
        header = self.header()
        sections = self.sections()
        self.code("END_FUNCTION_BLOCK")
        body = sections.struct(place)
        self.into.add_type(
            TypeDef(name, body, place, header.optimized, sections.constants, True, self.classic)
        )

    def code(self, end: str) -> None:
        """Skips to the block's end; a declaration that is not understood is no code."""
        while self.token.kind != "end":
            word, after = self.token.word, self.tokens[min(self.at + 2, len(self.tokens) - 1)]
            declares = self.following.kind in ("name", "quoted") and after.text in (":", ",")
            if _ANY_SECTION.fullmatch(word) and (declares or self.following.word in _SECTION_FLAGS):
                known = word in _SECTIONS or word in _NO_MEMORY or word == "CONST"
                what = "behind what is no declaration" if known else "is no section of a block"
                hint = "sections are VAR_INPUT, VAR_OUTPUT, VAR_IN_OUT, VAR, VAR_TEMP, VAR CONSTANT"
                self.fail(f"{word} {what}", hint)
            if self.take().word == end:
                return

    def data_block(self) -> None:
        place = self.place(self.tokens[self.at - 1])
        name = self.block_name()
        quoted = self.tokens[self.at - 1].kind == "quoted"
        self.is_1200 = False
        header = self.header()
        constants: dict[str, str] = {}
        body: Type
        if self.token.word.startswith("VAR") and self.token.word in {*_SECTIONS, *_NO_MEMORY}:
            sections = self.sections()
            body, constants = sections.struct(place), sections.constants
        elif self.token.kind == "end" or self.token.word in ("BEGIN", "END_DATA_BLOCK"):
            self.fail(f"data block {name!r} declares nothing")
        else:
            body = self.type()
        self.accept(";")
        if self.token.word not in ("BEGIN", "END_DATA_BLOCK"):
            self.fail(f"expected BEGIN or END_DATA_BLOCK of {name!r}, found {self.said()}")
        self.skip_to("END_DATA_BLOCK")
        match = re.fullmatch(r"DB(\d{1,9})", name) if not quoted else None
        number = int(match[1]) if match else None
        block = Block(name, number, body, place, header.optimized, "", self.classic, constants)
        self.into.add_block(block)

    # --- declarations ------------------------------------------------------------------------

    def sections(self) -> _Sections:
        """VAR … END_VAR and CONST … END_CONST, as many as there are."""
        out = _Sections()
        while True:
            self.header()  # some sources repeat attributes between sections
            word = self.token.word
            if word == "CONST":
                self.take()
                self.constants(out, "END_CONST", typed=False)
            elif word == "LABEL":
                self.skip_to("END_LABEL")
            elif word in _SECTIONS or word in _NO_MEMORY:
                self.take()
                constant = False
                while self.token.word in _SECTION_FLAGS and self.following.text not in (":", ","):
                    constant |= self.take().word == "CONSTANT"
                if constant:
                    self.constants(out, "END_VAR", typed=True)
                elif word in _NO_MEMORY:
                    self.skip_to("END_VAR")
                else:
                    members = self.members("END_VAR")
                    if word == "VAR_IN_OUT":
                        members = [by_reference(m) for m in members]
                    out.members.setdefault(_SECTIONS[word], []).extend(members)
                self.accept(";")
            else:
                return out

    def constants(self, out: _Sections, end: str, *, typed: bool) -> None:
        """``N : Int := 5;`` or ``N := 5;`` up to ``end``."""
        while not self.accept(end):
            name = self.name(f"a constant or {end}")
            self.pragmas()
            if typed and self.accept(":"):
                self.type()
            if self.token.kind == "assign":
                self.take()
                parts = self.until(";")
                out.constants[f"#{name.text.lstrip('#').lower()}"] = " ".join(parts)
            self.expect(";", f"after the constant {name.text!r}")

    def members(self, end: str) -> list[Member]:
        """Declarations up to ``end``, which is taken."""
        out: list[Member] = []
        while True:
            if self.token.word == end and self.following.text not in (":", ","):
                self.take()
                return out
            out += self.declaration(end)

    def declaration(self, end: str) -> list[Member]:
        """``a, b {pragma} : type := value;``"""
        self.pragmas()
        names: list[Token] = []
        while True:
            token = self.name(f"a variable or {end}")
            names.append(token)
            self.pragmas()
            if self.token.word == "AT":
                return self.overlay(token)
            if not self.accept(","):
                break
        self.expect(":", f"after {names[-1].text!r}")
        self.pragmas()
        type_line = self.token.line
        kind = self.type()
        self.pragmas()
        if self.token.kind == "assign":
            self.take()
            self.until(";")
        if not self.accept(";"):
            innermost = kind
            while isinstance(innermost, Array):
                innermost = innermost.element
            if not isinstance(innermost, Struct):
                message = f"a ; is missing after the declaration of {names[-1].text!r}"
                raise wrong(self.place(self.tokens[self.at - 1]), message)
        last_line = self.tokens[self.at - 1].line
        lines = (names[0].line, type_line) if isinstance(kind, Struct) else (last_line, type_line)
        comment = next((self.comments[n] for n in lines if n in self.comments), "")
        return [Member(n.text, kind, self.place(n), comment) for n in names]

    def overlay(self, name: Token) -> list[Member]:
        """``name AT other : type;`` is a second view of the same bytes: no room, no field."""
        self.take()
        other = self.name("the variable that AT names")
        self.expect(":", f"after {other.text!r}")
        self.type()
        self.pragmas()
        self.accept(";")
        self.into.notes.append(
            f"{self.place(name)}: {name.text!r} is an AT view of {other.text!r}, left out: the"
            " bytes are read under their first name"
        )
        return []

    def type(self) -> Type:
        token = self.name("a type")
        place = self.place(token)
        word = token.word
        if word == "ARRAY":
            return self.array(place)
        if word == "STRUCT":
            self.pragmas()
            return Struct(tuple(self.members("END_STRUCT")), place)
        if token.kind == "quoted":
            return Named(token.text, place, quoted=True)
        if word in _NUMBERED and self.token.kind == "number":
            return Named(f"{word}{self.number()}", place)
        if word in _STRINGS and self.token.text in ("[", "("):
            closing = {"[": "]", "(": ")"}[self.take().text]
            length = _bound(self.until(closing))
            self.expect(closing, "after the length of a string")
            return Named(word, place, length)
        if word == "REF_TO":
            self.fail("REF_TO exists in blocks with optimized access only")
        name = system_types.of_1200(token.text) if self.is_1200 else token.text
        while self.token.text == "." and self.following.kind in ("name", "quoted"):
            self.take()  # a type of a library or namespace: Lib.Motor
            name += f".{self.take().text}"
        return Named(name, place)

    def array(self, place: Place) -> Array:
        self.expect("[", "after ARRAY")
        bounds: list[tuple[Bound, Bound]] = []
        while True:
            low = self.until("..", ",", "]")
            if self.token.kind != "range":
                if low == ["*"]:  # Array[*]: an in-out, held as a pointer
                    bounds.append(("*", "*"))
                    if self.accept(","):
                        continue
                    break
                self.fail(f"expected .. between an array's bounds, found {self.said()}")
            self.take()
            bounds.append((_bound(low), _bound(self.until(",", "]"))))
            if not self.accept(","):
                break
        self.expect("]", "after an array's bounds")
        self.expect("OF", "after an array's bounds")
        self.pragmas()
        return Array(tuple(bounds), self.type(), place)

    def until(self, *ends: str) -> list[str]:
        """The tokens up to one of ``ends`` outside of all brackets; that one stays."""
        depth = 0
        out: list[str] = []
        first = self.token
        while True:
            token = self.token
            if depth == 0 and token.kind in ("other", "range") and token.text in ends:
                return out
            if token.kind == "end" or token.word in ("END_VAR", "END_STRUCT", "END_DATA_BLOCK"):
                message = f"expected {' or '.join(map(repr, ends))}, found {self.said()}"
                raise wrong(self.place(first), message)
            if token.kind == "other":
                depth += (token.text in "([") - (token.text in ")]")
            out.append(f'"{token.text}"' if token.kind == "quoted" else token.text)
            self.take()


def _bound(parts: list[str]) -> Bound:
    text = " ".join(parts)
    return int(text) if re.fullmatch(r"[0-9]{1,11}", text) else text


def by_reference(member: Member) -> Member:
    """An in-out as its instance holds it: elementary types by value, others by pointer."""
    kind = member.type
    if isinstance(kind, Named) and not kind.quoted and system_types.by_value(kind.name):
        return member
    return Member(member.name, Named("POINTER", member.place), member.place, member.comment)


def parse_type(text: str, place: Place) -> Type:
    """A type as other kinds of source write it: ``Array[0..5] of "Motor"``, ``String[20]``.

    Raises SourceError at ``place``.
    """
    parser = _Parser(text, place.file, Sources(), classic=False)
    parser.line_offset = place.line - 1
    kind = parser.type()
    if parser.token.kind != "end":
        parser.fail(f"a type ends before {parser.said()}: {text!r}")
    return kind
