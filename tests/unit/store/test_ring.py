"""The reader's ring: kill -9 at any moment, wrap, overwrite, damage."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.reader.ring import MAGIC, Ring, open_ring

SIZE_BYTES = 64 * 1024


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    yield folder / "p1.ring"
    shutil.rmtree(folder)


def frame(seq: int) -> bytes:
    # The magic inside a message must not confuse recovery, at any alignment.
    return b"%d|" % seq + b"y" * (seq % 7) + MAGIC + b"x" * (seq * 37 % 900)


def filled(path: Path, count: int) -> Ring:
    ring = Ring(path, SIZE_BYTES)
    ring.begin(1_000)
    for seq in range(1, count + 1):
        ring.append(seq, frame(seq))
    return ring


class Guarded(mmap.mmap):
    """A map in which a search must stay before the end: in Python 3.11.2 it reads one byte more."""

    def find(self, sub: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        assert end is not None
        assert 0 <= start <= end < len(self)
        return super().find(sub, start, end)


@pytest.mark.parametrize("last_bytes", [1, 900, 60_000])
def test_recovery_never_reads_behind_the_map(
    path: Path, monkeypatch: pytest.MonkeyPatch, last_bytes: int
) -> None:
    ring = filled(path, 1)
    ring.append(2, b"x" * last_bytes)
    # The last row ends where the map ends.
    room = SIZE_BYTES - ring._end - 32
    ring.append(3, b"x" * room)
    assert ring._end == SIZE_BYTES
    ring.close()
    monkeypatch.setattr(mmap, "mmap", Guarded)
    again = Ring(path, SIZE_BYTES)
    assert [again.frame(seq) for seq in (2, 3)] == [b"x" * last_bytes, b"x" * room]
    again.close()


@pytest.mark.parametrize("count", [1, 50, 200, 1_000, 3_333])
def test_reopened_it_holds_the_newest_rows_and_goes_on(path: Path, count: int) -> None:
    ring = filled(path, count)
    first = ring.first_seq
    again = Ring(path, SIZE_BYTES)
    assert (again.epoch, again.last_seq) == (1_000, count)
    assert again.first_seq <= first
    for seq in range(first, count + 1):
        assert again.frame(seq) == frame(seq)
    again.append(count + 1, frame(count + 1))
    assert Ring(path, SIZE_BYTES).last_seq == count + 1


def test_a_full_ring_overwrites_its_oldest(path: Path) -> None:
    ring = filled(path, 2_000)
    assert ring.first_seq > 1
    assert ring.overwritten == ring.first_seq - 1
    assert len(ring) == 2_000 - ring.first_seq + 1


def test_a_new_epoch_hides_the_old_rows(path: Path) -> None:
    ring = filled(path, 20)
    ring.begin(2_000)
    ring.append(1, b"new")
    again = Ring(path, SIZE_BYTES)
    assert (again.epoch, again.last_seq, len(again)) == (2_000, 1, 1)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_row_is_never_given_out_and_its_number_never_used_again(
    path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    count = rng.choice((5, 60, 700))
    filled(path, count).close()
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data.rstrip(b"\0")))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    ring = Ring(path, SIZE_BYTES)
    assert ring.last_seq == count
    rows = [ring.frame(seq) for seq in range(ring.first_seq, ring.last_seq + 1)]
    for seq, row in enumerate(rows, ring.first_seq):
        assert row is None or row == frame(seq)
    assert rows.count(None) <= 1


def test_a_row_larger_than_the_ring_is_refused(path: Path) -> None:
    ring = filled(path, 1)
    with pytest.raises(ValueError, match="exceeds the ring"):
        ring.append(2, bytes(SIZE_BYTES))
    assert ring.last_seq == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_without_room_it_lives_in_memory_and_says_why(path: Path) -> None:
    folder = path.parent / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        ring, problem = open_ring(folder / "p1.ring", 2 * SIZE_BYTES)
        assert "No space left" in problem
        ring.begin(1_000)
        for seq in range(1, 1_001):
            ring.append(seq, frame(seq))
        assert ring.last_seq == 1_000
        assert ring.overwritten == ring.first_seq - 1 > 0
        assert all(ring.frame(s) == frame(s) for s in range(ring.first_seq, 1_001))
        ring.close()
        # What the attempt left behind must not be taken for a ring later on.
        (folder / "p1.ring").unlink(missing_ok=True)
        ring, problem = open_ring(folder / "p1.ring", SIZE_BYTES // 2)
        assert not problem
        ring.close()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
