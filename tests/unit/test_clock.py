"""When a clock makes values uncertain."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime import clock


@pytest.mark.parametrize(
    ("clock_sync", "synchronised", "service", "trusted"),
    [
        ("auto", True, True, True),
        ("auto", True, False, True),
        ("auto", False, True, False),
        ("auto", False, False, True),
        ("required", True, False, True),
        ("required", False, False, False),
        ("ignored", False, True, True),
    ],
)
def test_when_a_clock_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    clock_sync: str,
    synchronised: bool,
    service: bool,
    trusted: bool,
) -> None:
    program = tmp_path / "timesyncd"
    if service:
        program.touch()
    monkeypatch.setattr(clock, "_BOOTED", str(tmp_path))
    monkeypatch.setattr(clock, "_TIME_SERVICES", (str(program),))
    monkeypatch.setattr(clock, "is_synchronised", lambda: synchronised)
    assert clock.is_trusted(clock_sync) is trusted
