"""A field that only tells the PLC's time does not make every scan a change."""

from __future__ import annotations

from services.s7.change import ChangeFilter
from services.s7.field import Field


def test_the_clock_alone_is_no_change() -> None:
    fields = [Field("hora", "DTL"), Field("x", "INT", byte=12)]
    f = ChangeFilter(fields, 60.0, clock="hora")
    assert f.passes({"hora": "2026-01-01T00:00:00", "x": 1}, {}, True, 0.0)
    assert not f.passes({"hora": "2026-01-01T00:00:01", "x": 1}, {}, True, 1.0)
    assert f.passes({"hora": "2026-01-01T00:00:02", "x": 2}, {}, True, 2.0)
    assert f.passes({"hora": "2026-01-01T00:01:02", "x": 2}, {}, True, 62.0)
