"""Values of every S7 type, for property tests."""

from __future__ import annotations

import datetime
import struct
from typing import Any, Literal

from hypothesis import strategies as st

from services.s7.types import ELEMENTARY, S7Type, parse_type, shortest


def _clock(ns: int, step_ns: int = 1) -> str:
    """``HH:MM:SS[.fff]`` as the decoder writes it, made another way than it does."""
    ns = ns // step_ns * step_ns
    text = (datetime.datetime(2000, 1, 1) + datetime.timedelta(seconds=ns // 10**9)).strftime("%T")
    rest = ns % 10**9
    if rest == 0:
        return text
    for digits in (3, 6, 9):
        if rest % 10 ** (9 - digits) == 0:
            return f"{text}.{rest // 10 ** (9 - digits):0{digits}d}"
    raise AssertionError


DAY_NS = 86_400 * 10**9
_day = st.integers(0, DAY_NS - 1)
_ms_day = st.integers(0, 86_399_999).map(lambda ms: ms * 10**6)
_s5 = st.builds(lambda n, base: n * 10 * 10**base, st.integers(0, 999), st.integers(0, 3))


def _moments(first: str, last: str, clocks: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    dates = st.dates(datetime.date.fromisoformat(first), datetime.date.fromisoformat(last))
    return st.builds(lambda d, ns: f"{d}T{_clock(ns)}", dates, clocks)


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(
        0, 2**bits - 1
    )  # fmt: skip


def _is_text(character: str) -> bool:
    """C1 controls are in no text."""
    return not "\x80" <= character <= "\x9f"


# UTF-16 halves: no characters by themselves.
_SURROGATES: tuple[Literal["Cs"]] = ("Cs",)

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    **{n: _integers(8, signed=False) for n in ("BYTE", "USINT")},
    "SINT": _integers(8, signed=True),
    "INT": _integers(16, signed=True),
    **{n: _integers(16, signed=False) for n in ("UINT", "WORD")},
    **{n: _integers(32, signed=True) for n in ("DINT", "TIME")},
    **{n: _integers(32, signed=False) for n in ("UDINT", "DWORD")},
    **{n: _integers(64, signed=True) for n in ("LINT", "LTIME")},
    **{n: _integers(64, signed=False) for n in ("ULINT", "LWORD")},
    "REAL": st.floats(width=32, allow_nan=False, allow_infinity=False).map(
        lambda v: shortest(struct.unpack(">f", struct.pack(">f", v))[0])
    ),
    "LREAL": st.floats(allow_nan=False, allow_infinity=False),
    "CHAR": st.characters(max_codepoint=255),
    "WCHAR": st.characters(max_codepoint=0xFFFF, exclude_categories=_SURROGATES),
    "S5TIME": _s5,
    "TIMER": _s5,
    "COUNTER": st.integers(0, 999),
    "DATE": st.dates(datetime.date(1990, 1, 1), datetime.date(2168, 12, 31)).map(str),
    "TOD": _ms_day.map(_clock),
    "LTOD": _day.map(_clock),
    "LDT": _moments("1970-01-01", "2262-04-10", _day),
    "DT": _moments("1990-01-01", "2089-12-31", _ms_day),
    "DTL": _moments("1970-01-01", "2262-04-10", _day),
}
assert SCALARS.keys() == ELEMENTARY.keys()


@st.composite
def types(draw: st.DrawFn, bases: tuple[str, ...] = (*SCALARS, "STRING", "WSTRING")) -> S7Type:
    """Scalars, strings of any length, arrays of up to three dimensions."""
    base = draw(st.sampled_from(bases))
    text = f"{base}[{draw(st.integers(1, 12))}]" if base.endswith("STRING") else base
    dims = draw(st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 11)), max_size=3))
    array: bool = draw(st.booleans())
    if dims and array:
        text += "[" + ",".join(f"{low}..{low + n - 1}" for low, n in dims) + "]"
    return parse_type(text)


def values(t: S7Type) -> st.SearchStrategy[Any]:
    """What a field of this type may read as."""
    one: st.SearchStrategy[Any]
    if t.base == "STRING":
        one = st.text(st.characters(max_codepoint=255).filter(_is_text), max_size=t.length)
    elif t.base == "WSTRING":
        one = st.text(st.characters(exclude_categories=_SURROGATES), max_size=t.length // 2)
    else:
        one = SCALARS[t.base]
    for count in reversed(t.counts):
        one = st.lists(one, min_size=count, max_size=count)
    return one
