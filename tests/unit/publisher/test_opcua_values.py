"""A message's value as OPC UA has it, or the word that it is none: never what cannot be packed."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

from services.publisher.opcua.values import kind
from services.s7.field import Field

_TYPES = ["BOOL", "BYTE", "INT", "DINT", "UDINT", "LINT", "ULINT", "REAL", "LREAL", "STRING[10]",
          "DTL", "TIME", "TOD", "REAL[0..2]", "INT[0..1,0..1]"]  # fmt: skip
_VALUES = [
    True, 0, -1, 5, 2.5, 70_000, 2**40, "abc", "12", "18446744073709551615", "2026-01-02T03:04:05",
    1e300, 3.4028235e38, [1, 2], [1.5, 2.5, 3.5], [[1, 2], [3, 4]], [[1, 2]], ["a", 2], {},
]  # fmt: skip


@pytest.mark.parametrize("type", _TYPES)
def test_what_is_of_another_type_is_no_value(type: str) -> None:
    """After a change of the layout the newest message may be from before it. What asyncua cannot
    pack takes the whole answer with it, or ends the subscription.
    """
    of = kind(Field.from_dict({"name": "x", "type": type}))
    taken: list[Any] = []
    for value in _VALUES:
        try:
            variant = of.wrap(value)
        except (ValueError, TypeError, OverflowError):
            continue
        got = variant_from_binary(Buffer(variant_to_binary(variant)))
        assert got.VariantType == of.variant
        if of.variant != ua.VariantType.DateTime and not of.dims:
            assert got.Value == pytest.approx(int(str(value)) if of.variant in (8, 9) else value)
            assert isinstance(got.Value, bool) == isinstance(value, bool), value
        taken.append(value)
    assert taken


def test_the_largest_real_is_one() -> None:
    """A reader writes it in its shortest form, which is more than it is."""
    assert kind(Field.from_dict({"name": "x", "type": "REAL"})).wrap(3.4028235e38).Value > 3e38
