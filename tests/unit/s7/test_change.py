"""The change filter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.s7.change import ChangeFilter
from services.s7.field import Field


class Feed:
    """A filter fed once a second."""

    def __init__(self, *fields: Field, max_silence_s: float = 1e9) -> None:
        self.filter = ChangeFilter(fields, max_silence_s)
        self.now_s = 0.0

    def __call__(self, bad: dict[str, str] | None = None, **values: Any) -> bool:
        self.now_s += 1
        return self.filter.passes(values, bad or {}, changed=True, now_s=self.now_s)


def test_any_change_without_a_deadband() -> None:
    feed = Feed(Field("x", "INT"), Field("y", "STRING[4]"))
    assert feed(x=1, y="a")
    assert not feed(x=1, y="a")
    assert feed(x=1, y="b")
    assert feed(x=2, y="b")


@pytest.mark.parametrize(
    ("deadband", "quiet", "loud"),
    [
        ({"abs": 0.5}, (10.5, 9.5), (10.51, 9.49)),
        ({"percent": 10.0}, (11.0, 9.0), (11.1, 8.9)),
        ({"abs": 0.0}, (10.0,), (10.0001,)),
    ],
)
def test_deadbands(
    deadband: dict[str, float], quiet: tuple[float, ...], loud: tuple[float, ...]
) -> None:
    for value in loud:
        feed = Feed(Field("x", "REAL", deadband=deadband))
        assert feed(x=10.0)
        assert not any(feed(x=q) for q in quiet)
        assert feed(x=value)


def test_one_field_brings_the_group() -> None:
    feed = Feed(Field("x", "REAL", deadband={"abs": 5.0}), Field("on", "BOOL"))
    assert feed(x=1.0, on=False)
    assert not feed(x=3.0, on=False)
    assert feed(x=3.0, on=True)
    # 3.0 was published, so it is what the band is measured from.
    assert not feed(x=8.0, on=True)
    assert feed(x=8.1, on=True)


def test_quality_always_passes() -> None:
    feed = Feed(Field("x", "REAL", deadband={"abs": 5.0}))
    assert feed(x=1.0)
    assert feed({"x": "nan"})
    assert not feed({"x": "nan"})
    assert feed({"x": "access_denied"})
    assert feed(x=1.0)


def test_max_silence() -> None:
    feed = Feed(Field("x", "INT"), max_silence_s=3)
    assert [feed(x=1) for _ in range(8)] == [True, False, False, True, False, False, True, False]


def test_unchanged_bytes_are_not_compared() -> None:
    f = ChangeFilter([Field("x", "INT")], 60)
    assert f.passes({"x": 1}, {}, True, 0)
    assert not f.passes({"x": 1}, {}, False, 1)


@pytest.mark.parametrize("before", [[1.0, 2.0], [[1.0], [2.0]]])
def test_arrays(before: list[Any]) -> None:
    feed = Feed(Field("x", "REAL[0..1]", deadband={"abs": 0.5}))
    nested = isinstance(before[0], list)
    assert feed(x=before)
    assert not feed(x=[[1.5], [1.5]] if nested else [1.5, 1.5])
    assert feed(x=[[1.0], [2.6]] if nested else [1.0, 2.6])


def test_wide_integers_are_text() -> None:
    big = 2**60
    feed = Feed(Field("x", "LINT", deadband={"abs": 2.0}))
    assert feed(x=str(big))
    assert not feed(x=str(big + 2))
    assert feed(x=str(big + 3))
    assert feed(x=5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1e3))
def test_a_reader_never_is_further_off_than_the_deadband(values: list[float], band: float) -> None:
    feed = Feed(Field("x", "REAL", deadband={"abs": band}))
    shown = None
    for value in values:
        if feed(x=value):
            shown = value
        assert shown is not None
        assert abs(value - shown) <= band
