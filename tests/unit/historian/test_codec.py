"""Columns come back to the bit, whatever is in them; bytes that are none are told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.historian.codec import Damaged, decode, encode
from services.historian.table import MISSING, Column, column

INTS = st.integers(-(2**63), 2**63 - 1)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
REALS = st.floats(width=32, allow_nan=False, allow_infinity=False).map(
    lambda x: float(str(np.float32(x)))
)
DECIMALS = st.integers(-(10**7), 10**7).map(lambda n: n / 100)
ANY = st.one_of(
    st.none(), st.booleans(), INTS, DOUBLES, st.text(max_size=5), st.lists(INTS, max_size=3)
)
COLUMNS = st.one_of(
    st.lists(INTS), st.lists(st.booleans()), st.lists(DOUBLES), st.lists(REALS),
    st.lists(DECIMALS), st.lists(st.sampled_from(["a", "", "ç"])), st.lists(ANY),
    st.lists(st.one_of(st.just(MISSING), DECIMALS)), st.lists(st.one_of(st.just(MISSING), ANY)),
)  # fmt: skip


@given(COLUMNS)
def test_a_column_comes_back_to_the_bit(cells: list[object]) -> None:
    given_ = column(cells)
    got = decode(encode(given_), len(cells))
    assert got.values.dtype == given_.values.dtype
    there = given_.has(len(cells))
    assert (got.has(len(cells)) == there).all()
    # repr tells 1 from 1.0 and True, and -0.0 from 0.0.
    assert repr(got.values[there].tolist()) == repr(given_.values[there].tolist())


@given(COLUMNS, st.data())
def test_cut_bytes_are_told(cells: list[object], data: st.DataObject) -> None:
    body = encode(column(cells))
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        got = decode(cut, len(cells))
    except Damaged:
        return
    assert len(got.values) == len(cells)  # the checksum beside it tells then


def test_another_number_of_rows_is_told() -> None:
    with pytest.raises(Damaged, match="2 values instead of 3"):
        decode(encode(Column(np.array([1, 2]), None)), 3)


@pytest.mark.parametrize(
    ("name", "values", "bytes_each"),
    [
        ("counter", np.arange(36_000) // 7, 0.02),
        ("constant", np.full(36_000, 3.5), 0.01),
        ("bool", np.arange(36_000) // 50 % 2 == 0, 0.02),
        ("two decimals", np.round(60 + 10 * np.sin(np.arange(36_000) / 95), 2), 1.1),
        ("time at 10 Hz", 10**12 + np.arange(36_000) * 100 + np.arange(36_000) % 3, 0.5),
    ],
)
def test_what_plants_send_becomes_small(name: str, values: np.ndarray, bytes_each: float) -> None:
    size = len(encode(Column(values, None)))
    assert size <= bytes_each * len(values), f"{name}: {size / len(values):.3f} bytes a value"
