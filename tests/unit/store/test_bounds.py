"""What is dropped when, and what may not be held back."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import orjson
import pytest

from bus.frames import GAP_ROW, Sample
from services.store_forward import outbox as outbox_module
from services.store_forward.mending import Mender
from services.store_forward.outbox import Bounds, Outbox

EPOCH = 1_764_000_000_000
SEGMENT_BYTES = 40_000


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def opened(folder: Path, *outputs: str, **bounds: float) -> Outbox:
    wanted = {"min_free_bytes": 0, **bounds}
    limits = Bounds(segment_bytes=SEGMENT_BYTES, **wanted)  # type: ignore[arg-type]
    return Outbox(folder, "site", [(n, "oldest") for n in outputs], bounds=limits)


def fill(outbox: Outbox, segments: int) -> int:
    """Rows until there are so many segments; the newest seq."""
    seq = outbox.expected("p1")[1]
    while len(outbox.segments) < segments:
        seq += 1
        outbox.offer(Sample("p1", "acme", EPOCH, seq, seq, b"x" * 2_000))
        outbox.commit()
    return seq


def told(outbox: Outbox, output: str) -> tuple[set[int], set[int], set[str]]:
    """What waits for an output: (seqs in rows, seqs in gaps, the gaps' reasons)."""
    rows, gaps, reasons = set(), set(), set()
    for row in outbox.read(output, "live", outbox.cursors[output].done, 10_000_000):
        if row.kind == GAP_ROW:
            message = orjson.loads(row.body)
            gaps |= set(range(message["first_seq"], message["last_seq"] + 1))
            reasons.add(message["reason"])
        else:
            rows.add(row.seq)
    return rows, gaps, reasons


def everything(outbox: Outbox, output: str) -> tuple[set[int], set[int], set[str]]:
    """``told`` over all segments, read to the end."""
    rows: set[int] = set()
    gaps: set[int] = set()
    reasons: set[str] = set()
    while (found := told(outbox, output)) != (set(), set(), set()):
        rows, gaps, reasons = rows | found[0], gaps | found[1], reasons | found[2]
        at = outbox.cursors[output].done
        last = outbox.read(output, "live", at, 10_000_000)[-1].pos
        outbox.settle(output, "live", last)
    return rows, gaps, reasons


def offer(outbox: Outbox, seq: int, ts_ms: int) -> None:
    outbox.offer(Sample("p1", "acme", EPOCH, seq, ts_ms, b"x" * 2_000))
    outbox.commit()


HOUR_MS = 3_600_000


def grown_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """As another process finds it, some minutes after its start."""
    monkeypatch.setattr(outbox_module, "CLOCK_SETTLES_S", 0.0)
    outbox = opened(folder, "a", max_age_s=3_600)
    for _ in range(10):  # one segment a second
        outbox.reclaim()
    return outbox


def test_older_than_max_age_goes_with_a_gap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from the only segment, and without anything new coming in."""
    now_ms = int(time.time() * 1_000)
    outbox = opened(folder, "a", max_age_s=3_600)
    for seq in range(1, 6):
        offer(outbox, seq, now_ms - 2 * HOUR_MS)
    outbox.close()
    outbox = grown_old(folder, monkeypatch)
    before = len(list(folder.glob("*.seg")))
    for _ in range(30):
        outbox.reclaim()
    assert len(list(folder.glob("*.seg"))) == before == 1, "a gap row is no row to drop again"
    rows, gaps, reasons = everything(outbox, "a")
    assert (rows, gaps, reasons) == (set(), {1, 2, 3, 4, 5}, {"max_age"})
    outbox.close()


def test_what_is_not_old_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = int(time.time() * 1_000)
    outbox = opened(folder, "a", max_age_s=3_600)
    for seq in range(1, 10):  # one row every 10 minutes, the last one now
        offer(outbox, seq, now_ms - (9 - seq) * 600_000)
        outbox.reclaim()
    outbox.close()
    outbox = grown_old(folder, monkeypatch)
    rows, gaps, reasons = everything(outbox, "a")
    # 80, 70 and 60 minutes old; a segment holds an eighth of an hour at most.
    assert gaps | {3} == {1, 2, 3}
    assert rows | gaps == set(range(1, 10))
    assert reasons == {"max_age"}
    outbox.close()


@pytest.mark.parametrize(
    ("stamped_ms", "ahead_ms"),
    [(1_000, 0), (4_000_000_000_000, 0), (None, 30 * 24 * HOUR_MS)],
    ids=["1970", "2096", "ahead for a moment"],
)
def test_a_clock_that_is_wrong_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stamped_ms: int | None, ahead_ms: int
) -> None:
    now_ms = int(time.time() * 1_000)
    monkeypatch.setattr(outbox_module, "CLOCK_SETTLES_S", 0.0)
    outbox = opened(folder, "a", max_age_s=3_600)
    for seq in range(1, 4):
        offer(outbox, seq, stamped_ms or now_ms)
    monkeypatch.setattr(outbox_module, "now_ms", lambda: now_ms + ahead_ms)
    for _ in range(5):
        outbox.reclaim()
    rows, gaps, _ = everything(outbox, "a")
    assert (rows, gaps) == ({1, 2, 3}, set())
    outbox.close()


def test_what_ntp_makes_old_at_a_stroke_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PC that starts with the time of its last end, and is set right three weeks later."""
    monkeypatch.setattr(outbox_module, "CLOCK_SETTLES_S", 0.0)
    outbox = opened(folder, "a", max_age_s=3_600)
    for seq in range(1, 4):
        offer(outbox, seq, int(time.time() * 1_000) - 21 * 24 * HOUR_MS)
    for _ in range(5):
        outbox.reclaim()
    assert everything(outbox, "a")[:2] == ({1, 2, 3}, set())
    outbox.close()


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = opened(folder, "a", max_age_s=3_600)
    offer(outbox, 1, 4_000_000_000_000)
    last = fill(outbox, 2)
    first = outbox.segments[0].path
    outbox.close()
    two_hours_ago_s = time.time() - 7_200
    os.utime(first, (two_hours_ago_s, two_hours_ago_s))
    outbox = grown_old(folder, monkeypatch)
    assert not first.exists()
    rows, gaps, reasons = everything(outbox, "a")
    assert reasons == {"max_age"}
    assert rows | gaps == set(range(1, last + 1))
    outbox.close()


def test_a_full_disk_only_delays_what_age_asks_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ending a segment nor mending one may cost a row or the process."""

    def no_room(*_: object, **__: object) -> None:
        raise apsw.FullError("database or disk is full")

    outbox = opened(folder, "a", max_age_s=3_600)
    offer(outbox, 1, int(time.time() * 1_000) - HOUR_MS)
    monkeypatch.setattr(Outbox, "_new_segment", no_room)
    outbox.reclaim()
    monkeypatch.undo()
    fill(outbox, 3)
    outbox.close()
    monkeypatch.setattr(outbox_module, "CLOCK_SETTLES_S", 0.0)
    outbox = opened(folder, "a", max_age_s=3_600)
    outbox.segments[0]._db.execute("UPDATE stream SET crc = 0")
    monkeypatch.setattr(Mender, "rebuild", no_room)
    outbox.reclaim()
    monkeypatch.undo()
    rows, gaps, _ = everything(outbox, "a")
    assert rows == set(range(1, max(rows) + 1))
    assert not gaps
    outbox.close()


def test_below_min_free_the_oldest_goes_with_a_gap(folder: Path) -> None:
    outbox = opened(folder, "a")
    fill(outbox, 3)
    outbox.bounds.min_free_bytes = outbox.free_bytes * 2  # as if others had filled the disk
    before = outbox.segments[0].path
    last = fill(outbox, 3)
    while before in [s.path for s in outbox.segments]:
        last += 1
        outbox.offer(Sample("p1", "acme", EPOCH, last, last, b"x" * 2_000))
        outbox.commit()
        assert last < 1_000, "nothing is given up"
    assert not before.exists()
    rows, gaps, reasons = everything(outbox, "a")
    assert gaps
    assert rows | gaps == set(range(1, last + 1))
    assert reasons == {"disk_full"}
    outbox.close()


def test_a_removed_output_holds_no_segment_back(folder: Path) -> None:
    outbox = opened(folder, "quick", "slow")
    last = fill(outbox, 4)
    everything(outbox, "quick")
    outbox.reclaim()
    assert len(outbox.segments) == 4, "the slow one has seen nothing"
    outbox.set_outputs([("quick", "oldest")])
    outbox.reclaim()
    assert len(outbox.segments) == 1
    outbox.close()
    again = opened(folder, "quick", "slow")
    assert again.expected("p1") == (EPOCH, last)
    rows, gaps, _ = everything(again, "slow")
    assert not gaps, "an output that comes anew has no claim to what is gone"
    assert rows <= set(range(1, last + 1))
    again.close()
