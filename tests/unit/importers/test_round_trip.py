"""Random structures -> source text -> import: the offsets equal an independent model's.

The model places by counting half-words on a list of occupied bits, not by the importer's formulas.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.s7.importers import text as text_reader
from services.s7.importers.layouts import layouts
from services.s7.importers.model import Sources

SIZES = {
    "Bool": 0, "Byte": 1, "Char": 1, "SInt": 1, "USInt": 1, "Int": 2, "UInt": 2, "Word": 2,
    "Date": 2, "S5Time": 2, "WChar": 2, "DInt": 4, "UDInt": 4, "DWord": 4, "Real": 4, "Time": 4,
    "Time_Of_Day": 4, "LInt": 8, "ULInt": 8, "LWord": 8, "LReal": 8, "LTime": 8, "LTOD": 8,
    "LDT": 8, "Date_And_Time": 8, "DTL": 12,
}  # fmt: skip

scalars = st.sampled_from(list(SIZES)).map(lambda n: ("scalar", n))
strings = st.tuples(st.sampled_from(["String", "WString"]), st.integers(1, 30))
bounds = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 9)).map(lambda b: (b[0], b[0] + b[1])),
    min_size=1,
    max_size=2,
)
elements = scalars | strings


def extend(types: Any) -> Any:
    structs = st.lists(types, min_size=1, max_size=5).map(lambda m: ("struct", m))
    small = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=2)
    arrays = st.tuples(
        st.just("array"), small.map(lambda b: [(lo, lo + n) for lo, n in b]), structs
    )
    return structs | arrays


kinds = st.recursive(
    elements | st.tuples(st.just("array"), bounds, elements), extend, max_leaves=10
)


def spell(kind: Any) -> str:
    head = kind[0]
    if head == "scalar":
        return str(kind[1])
    if head in ("String", "WString"):
        return f"{head}[{kind[1]}]"
    if head == "array":
        dims = ", ".join(f"{low}..{high}" for low, high in kind[1])
        return f"Array[{dims}] of {spell(kind[2])}"
    members = "".join(f"  v{i} : {spell(k)};\n" for i, k in enumerate(kind[1]))
    return f"Struct\n{members}END_STRUCT"


class Memory:
    """Bits taken so far, as one growing number: the independent model."""

    def __init__(self) -> None:
        self.bits = 0
        self.found: dict[str, float] = {}

    def to_byte(self) -> None:
        while self.bits % 8:
            self.bits += 1

    def to_word(self) -> None:
        while self.bits % 16:
            self.bits += 1

    def name(self, path: str) -> None:
        self.found[path] = self.bits // 8

    def put(self, kind: Any, path: str) -> None:
        head = kind[0]
        if head == "scalar" and kind[1] == "Bool":
            self.found[path] = float(f"{self.bits // 8}.{self.bits % 8}")
            self.bits += 1
        elif head == "scalar":
            self.to_byte() if SIZES[kind[1]] == 1 else self.to_word()
            self.name(path)
            self.bits += 8 * SIZES[kind[1]]
        elif head in ("String", "WString"):
            self.to_word()
            self.name(path)
            self.bits += 8 * (kind[1] + 2 if head == "String" else 2 * kind[1] + 4)
        elif head == "struct":
            self.to_word()
            for i, member in enumerate(kind[1]):
                self.put(member, f"{path}.v{i}" if path else f"v{i}")
            self.to_word()
        else:
            self.array(kind, path)

    def array(self, kind: Any, path: str) -> None:
        _, dims, element = kind
        self.to_word()
        indices = list(itertools.product(*(range(a, b + 1) for a, b in dims)))
        if element[0] == "struct":
            for index in indices:
                self.put(element, f"{path}.{'.'.join(map(str, index))}")
        else:
            self.name(path)
            for index in indices:
                if element == ("scalar", "Bool"):
                    if index[-1] == dims[-1][0]:  # a row begins
                        self.to_byte()
                    self.bits += 1
                else:
                    self.put(element, "")
            self.found.pop("", None)
        self.to_word()


@settings(max_examples=100, deadline=None)
@given(st.lists(kinds, min_size=2, max_size=8))
def test_offsets_equal_the_model(members: list[Any]) -> None:
    body = ("struct", members)
    source = f'DATA_BLOCK "R"\n{spell(body)};\nBEGIN\nEND_DATA_BLOCK\n'
    sources = Sources()
    text_reader.read(source, "r.db", sources, classic=True)
    memory = Memory()
    memory.put(body, "")
    assume(memory.bits <= 8 * 65_536)
    (layout,) = layouts(sources)
    assert {f["name"]: f["offset"] for f in layout.fields} == memory.found
    assert layout.record_bytes == memory.bits // 8
