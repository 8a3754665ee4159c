"""The newest cursors outlive a kill; damaged or missing, state.db's are what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.frames import Sample
from services.store_forward.outbox import Outbox


def killed(folder: Path) -> tuple[int, int]:
    """An outbox of ten rows that ends without a word; (position in state.db, newest position)."""
    outbox = Outbox(folder, "site", [("a", "oldest"), ("b", "oldest")])
    for seq in range(1, 11):
        outbox.offer(Sample("p1", "acme", 1, seq, seq, b"{}"))
    outbox.commit()
    first = outbox.first_pos
    outbox.settle("a", "live", first + 2)
    outbox.sync()
    outbox.settle("a", "live", first + 7)
    outbox.save()
    for segment in outbox.segments:
        segment.close()
    outbox.state.close()
    return first + 2, first + 7


def opened(folder: Path, *outputs: str) -> Outbox:
    return Outbox(folder, "site", [(name, "oldest") for name in outputs])


def test_a_receipt_outlives_a_kill(tmp_path: Path) -> None:
    _, newest = killed(tmp_path)
    outbox = opened(tmp_path, "a", "b")
    assert outbox.cursors["a"].done == newest
    assert outbox.pending("b") == 10
    outbox.close()


@pytest.mark.parametrize("content", [None, b"", b"x" * 30, b"\xff" * 180])
def test_damaged_it_is_passed_over(tmp_path: Path, content: bytes | None) -> None:
    synced, _ = killed(tmp_path)
    file = tmp_path / "latest.cursors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    outbox = opened(tmp_path, "a", "b")
    assert outbox.cursors["a"].done == synced
    outbox.close()


def test_an_output_that_comes_back_begins_anew(tmp_path: Path) -> None:
    killed(tmp_path)
    opened(tmp_path, "b").close()
    outbox = opened(tmp_path, "a", "b")
    assert outbox.pending("a") == 10
    outbox.close()
