"""What the box says of itself fits what the centre takes."""

from __future__ import annotations

from services.control_plane.routes.targets import ReportForm
from services.fleet.agent import _short


def test_long_problems_are_cut_before_they_are_sent() -> None:
    long = {"file": "config.yaml", "line": 3, "key": "k" * 9_000, "message": "é" * 70_000}
    short = _short([{**long, "hint": "h"}] * 200)
    assert len(short) == 100
    cut = {**long, "key": "k" * 1_000, "message": "é" * 1_000, "hint": "h"}
    assert short[0] == cut
    form = ReportForm(state="refused", problems=short)
    assert form.problems[0].model_dump() == cut
