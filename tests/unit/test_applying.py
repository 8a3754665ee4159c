"""What ``apply`` says where it cannot take its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime import applying
from services.runtime.applying import NotRunning
from services.runtime.errors import PlcEdgeError


def test_where_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        applying.restore({"x": {"runtime": str(tmp_path / "none")}}, "config.yaml")


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """As another user's is; root may open that one, so here it is a folder."""
    (tmp_path / "apply.lock").mkdir()
    with pytest.raises(PlcEdgeError, match=r"apply\.lock: .*: run it as the user"):
        applying.restore({"x": {"runtime": str(tmp_path)}}, "config.yaml")
