"""Damage to the outbox's files: it opens, and what it lost it tells of."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from bus.frames import GAP_ROW, Sample
from services.store_forward.outbox import Bounds, Outbox

EPOCH, ROWS = 1_764_000_000_000, 20
NAME = b"forno-01"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def opened(folder: Path) -> Outbox:
    return Outbox(folder, "site", [("a", "oldest")])


def delivered(outbox: Outbox) -> tuple[set[int], set[int]]:
    """(seqs of rows, seqs that gaps tell of); an open gap tells of its first and all behind."""
    rows: set[int] = set()
    told: set[int] = set()
    at = outbox.cursors["a"].done
    while found := outbox.read("a", "live", at, 1_000):
        at = found[-1].pos
        for row in found:
            if row.kind == GAP_ROW:
                gap = orjson.loads(row.body)
                told |= set(range(gap["first_seq"], (gap["last_seq"] or ROWS) + 1))
            else:
                rows.add(row.seq)
    return rows, told


@pytest.mark.parametrize("suffix", ["seg", "db"])
def test_a_flipped_bit_that_makes_a_text_no_text(folder: Path, suffix: str) -> None:
    """SQLite hands the bytes out as they are; Python refuses to decode them."""
    original = folder / "original"
    outbox = opened(original)
    for seq in range(1, ROWS + 1):
        outbox.offer(Sample(NAME.decode(), "acme", EPOCH, seq, seq, b"x" * 500))
        outbox.commit()
    outbox.save()
    outbox.close()
    (path,) = original.glob(f"*.{suffix}")
    content = path.read_bytes()
    places = [at for at in range(len(content)) if content.startswith(NAME, at)]
    assert places
    for number, at in enumerate(places):
        copy = folder / str(number)
        shutil.copytree(original, copy)
        damaged = bytearray(content)
        damaged[at] |= 0x80
        (copy / path.name).write_bytes(damaged)
        outbox = opened(copy)
        rows, told = delivered(outbox)
        assert rows | told == set(range(1, ROWS + 1)), f"byte {at}"
        assert len(rows) >= ROWS - 1, f"byte {at} cost the rows {told}"
        outbox.close()


def test_an_unreadable_first_segment_is_told_of(folder: Path) -> None:
    """Its rows are gone; that the stream began is known from the state file alone."""
    outbox = opened(folder)
    for seq in range(1, ROWS + 1):
        outbox.offer(Sample(NAME.decode(), "acme", EPOCH, seq, seq, b"x" * 500))
    outbox.commit()
    outbox.close()
    (path,) = folder.glob("*.seg")
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])
    outbox = opened(folder)
    assert delivered(outbox) == (set(), set(range(1, ROWS + 1)))
    assert len(list((folder / "quarantine").iterdir())) == 1
    outbox.close()


def flip(path: Path, text: bytes) -> None:
    """A bit of each place where this stands."""
    content = bytearray(path.read_bytes())
    assert text in content
    at = -1
    while (at := content.find(text, at + 1)) >= 0:
        content[at] ^= 1
    path.write_bytes(content)


def offered(outbox: Outbox, seqs: range) -> None:
    for seq in seqs:
        outbox.offer(Sample("p1", "acme", EPOCH, seq, seq, b"body-%d" % seq + b"." * 500))
        outbox.commit()


@pytest.mark.parametrize("outputs", ["a", "ab"])
def test_a_damaged_gap_row_is_told_all_the_same(folder: Path, outputs: str) -> None:
    """The rows around it do not show what it told: those were dropped before."""
    outbox = Outbox(folder, "site", [(name, "oldest") for name in outputs])
    offered(outbox, range(1, 6))
    outbox.purge("a")
    offered(outbox, range(6, 8))
    outbox.close()
    (path,) = folder.glob("*.seg")
    flip(path, b'"reason":"purged"')
    outbox = Outbox(folder, "site", [(name, "oldest") for name in outputs])
    rows, told = delivered(outbox)
    assert rows == {6, 7}
    assert told >= {1, 2, 3, 4, 5}
    outbox.close()


def test_a_damaged_gap_row_of_a_dropped_segment(folder: Path) -> None:
    bounds = Bounds(min_free_bytes=0, max_size_bytes=200_000, segment_bytes=40_000)
    outbox = Outbox(folder, "site", [("a", "oldest")], bounds=bounds)
    last = 0
    while "max_size" not in outbox.dropped:
        last += 1
        offered(outbox, range(last, last + 1))
    outbox.close()
    for path in folder.glob("*.seg"):
        if b'"reason":"max_size"' in path.read_bytes():
            flip(path, b'"reason":"max_size"')
    outbox = Outbox(folder, "site", [("a", "oldest")], bounds=bounds)
    rows, told = delivered(outbox)
    assert rows | told == set(range(1, last + 1))
    outbox.close()


def test_a_damaged_row_that_is_sent_again(folder: Path) -> None:
    """A dead letter on its second way: the stream's numbers are all there without it."""
    outbox = Outbox(folder, "site", [("a", "oldest")])
    offered(outbox, range(1, 4))
    first = outbox.segments[0].first_pos
    row = outbox.row(first + 1)
    assert row is not None
    outbox.state.bury("a", [(row, "too large")])
    outbox.settle("a", "live", first + 2)
    outbox.save()
    assert outbox.retry_dead("a") == 1
    outbox.close()
    (path,) = folder.glob("*.seg")
    flip(path, b".,a,")  # the end of its body, and whom it is for
    outbox = Outbox(folder, "site", [("a", "oldest")])
    assert delivered(outbox) == ({2}, set())
    outbox.close()


def test_a_damaged_state_file_undoes_no_commit(folder: Path) -> None:
    """The copy of a gap row comes after the row itself is safe."""
    outbox = opened(folder)
    offered(outbox, range(1, 4))
    outbox.state._db.execute("DROP TABLE copy")
    # The ring has lost 4 to 6: a gap row, and one for the sample.
    outbox.offer(Sample("p1", "acme", EPOCH, 7, 7, b"x", oldest=True))
    assert outbox.commit() == {"p1": (EPOCH, 7)}
    offered(outbox, range(8, 10))
    rows, told = delivered(outbox)
    assert (rows, told) == ({1, 2, 3, 7, 8, 9}, {4, 5, 6})
    outbox.close()
