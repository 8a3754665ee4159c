"""What a quota holds back, where the outbox under it rolls, fills up, is damaged or killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from bus.frames import GAP_ROW, Sample
from services.runtime.clock import now_ms
from services.store_forward import outbox as outbox_module
from services.store_forward.outbox import Bounds, DiskFull, Outbox
from services.store_forward.quota import REASON
from services.store_forward.segment import Segment
from tests.kit.common import ROOT

EPOCH = 1_764_000_000_000


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def opened(folder: Path) -> Outbox:
    bounds = Bounds(min_free_bytes=0)
    return Outbox(folder / "outbox", "site", [("a", "oldest")], bounds=bounds)


def sample(seq: int, key: str = "g", locatario: str = "acme", epoch: int = EPOCH) -> Sample:
    body = orjson.dumps({"group": key, "values": {"x": seq}})
    return Sample("p1", locatario, epoch, seq, now_ms(), body)


def hold(outbox: Outbox, *rows: tuple[int, str]) -> None:
    """Rows that wait: (seq, key)."""
    for seq, key in rows:
        assert outbox.place(sample(seq, key)) == "next"
        outbox.hold(sample(seq, key), key)


def flush(outbox: Outbox) -> None:
    """All that waits and all that is to be told goes into the next commit."""
    outbox.release("p1")
    if "p1" in outbox.withheld.untold:
        outbox.tell_withheld("p1", REASON)


def waiting(outbox: Outbox) -> tuple[set[int], set[int]]:
    """(seqs that wait, seqs that are not told of yet)."""
    held = {row.seq for rows in outbox.withheld.held.values() for row in rows.values()}
    untold: set[int] = set()
    for each in outbox.withheld.untold.values():
        untold |= {n for first, last in each.seqs for n in range(first, last + 1)}
    return held, untold


def delivered(outbox: Outbox) -> tuple[list[int], list[int]]:
    """(seqs in rows, seqs in gaps), in the order of the outbox."""
    rows: list[int] = []
    told: list[int] = []
    at = 0
    while found := outbox.read("a", "live", at, 1_000):
        for row in found:
            at = row.pos
            if row.kind == GAP_ROW:
                gap = orjson.loads(row.body)
                for first, last in gap.get("seqs") or [[gap["first_seq"], gap["last_seq"]]]:
                    told += range(first, last + 1)
            else:
                rows.append(row.seq)
    return rows, told


def held_and_committed(folder: Path) -> Outbox:
    """1 is a row; 4 and 5 wait; 2 and 3 are withheld, and nobody was told."""
    outbox = opened(folder)
    outbox.offer(sample(1))
    hold(outbox, (2, "g"), (3, "g"), (4, "h"), (5, "g"))
    assert outbox.commit() == {"p1": (EPOCH, 5)}
    assert waiting(outbox) == ({4, 5}, {2, 3})
    return outbox


# -- a segment that rolls while rows are released ---------------------------------------------

ROLL = """
import sys
from pathlib import Path
from tests.unit.store import test_withheld as t
outbox = t.held_and_committed(Path(sys.argv[1]))
outbox.bounds.segment_bytes = 1
t.flush(outbox)
outbox.commit()
"""


def test_killed_between_a_new_segment_and_its_rows(folder: Path) -> None:
    env = {**os.environ, "PLC_EDGE_FAILPOINT": "store.segment_made:2"}
    command = [sys.executable, "-c", ROLL, str(folder)]
    died = subprocess.run(command, cwd=ROOT, env=env, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    outbox = opened(folder)
    assert len(outbox.segments) == 2
    assert waiting(outbox) == ({4, 5}, {2, 3})
    flush(outbox)
    outbox.commit()
    assert delivered(outbox) == ([1, 4, 5], [2, 3])
    outbox.close()


class Full:
    """Appends of rows find no room; a new segment, which is empty, does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]) -> None:
        append = Segment.append

        def fail(segment: Segment, rows: Any, *args: Any, **more: Any) -> None:
            if rows and segment.path.suffix == ".seg":
                raise error
            append(segment, rows, *args, **more)

        monkeypatch.setattr(Segment, "append", fail)


def test_a_disk_that_is_full_behind_a_new_segment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = held_and_committed(folder)
    outbox.bounds.segment_bytes, usual = 1, outbox.bounds.segment_bytes
    flush(outbox)
    with monkeypatch.context() as patch:
        Full(patch, apsw.FullError)
        with pytest.raises(DiskFull):
            outbox.commit()
    outbox.bounds.segment_bytes = usual
    assert len(outbox.segments) == 2
    assert waiting(outbox) == ({4, 5}, {2, 3})
    hold(outbox, (6, "h"))
    outbox.commit()
    outbox.close()
    outbox = opened(folder)
    assert waiting(outbox) == ({5, 6}, {2, 3, 4})
    flush(outbox)
    outbox.commit()
    assert delivered(outbox) == ([1, 5, 6], [2, 3, 4])
    outbox.close()


# -- commits that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_what_waits_outlives_a_failed_commit_though_its_file_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    outbox = held_and_committed(folder)

    def unreadable(*_: object) -> None:
        raise apsw.IOError("disk I/O error")

    flush(outbox)
    outbox.offer(sample(6))
    with monkeypatch.context() as patch:
        Full(patch, error)
        patch.setattr(Segment, "table", unreadable)
        with pytest.raises(DiskFull):
            outbox.commit()
    assert waiting(outbox) == ({4, 5}, {2, 3})
    outbox.close()
    outbox = opened(folder)  # mended or not, the file says the same
    assert waiting(outbox) == ({4, 5}, {2, 3})
    flush(outbox)
    outbox.offer(sample(6))
    outbox.commit()
    assert delivered(outbox) == ([1, 4, 5, 6], [2, 3])
    outbox.close()


def test_a_mended_segment_still_holds_what_waits(folder: Path) -> None:
    """Whatever becomes of the process before the next commit."""
    outbox = held_and_committed(folder)
    outbox.segments[-1]._db.execute("UPDATE row SET crc = crc + 1")
    assert delivered(outbox)[1][:1] == [1], "it is mended when it is read"
    shutil.copytree(folder / "outbox", folder / "copy" / "outbox")  # as after kill -9
    outbox.close()
    outbox = opened(folder / "copy")
    assert waiting(outbox) == ({4, 5}, {2, 3})
    outbox.close()


# -- a newest segment without rows --------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop_for_space", "full"])
def test_a_segment_of_nothing_but_what_waits_is_not_replaced_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    outbox = held_and_committed(folder)
    outbox.cursors["a"].pass_over(outbox.last_pos)
    outbox.segments.append(outbox._new_segment(outbox.last_pos + 1))  # as max_age ends one
    outbox.reclaim()
    assert len(outbox.segments) == 1
    hold(outbox, (6, "g"))
    outbox.commit()
    live = outbox.segments[0].path
    if how == "full":
        outbox.bounds.segment_bytes = 1
    else:
        monkeypatch.setattr(outbox_module, "RESERVE_BYTES", 1)
        assert not outbox.drop_for_space()
    hold(outbox, (7, "g"))
    outbox.commit()
    assert [s.path for s in outbox.segments] == [live]
    outbox.close()
    assert live.exists()
    outbox = opened(folder)
    assert waiting(outbox) == ({4, 7}, {2, 3, 5, 6})
    assert outbox.committed("p1") == (EPOCH, 7)
    outbox.close()


# -- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "held", "lost"),
    [
        ("UPDATE untold SET crc = crc + 1", {4, 5}, {2, 3}),
        ("UPDATE held SET crc = crc + 1", set(), {4, 5}),
        ("UPDATE held SET crc = crc + 1 WHERE key = 'h'", {5}, {4}),
        ("UPDATE untold SET plc = 'pX'", {4, 5}, {2, 3}),
    ],
)
@pytest.mark.parametrize("rolled", [False, True])
def test_what_damage_takes_of_what_waits_is_told(
    folder: Path, damage: str, held: set[int], lost: set[int], rolled: bool
) -> None:
    """Though every row can be read."""
    outbox = held_and_committed(folder)
    if rolled:
        outbox.segments.append(outbox._new_segment(outbox.last_pos + 1))
    outbox.offer(Sample("p2", "acme", EPOCH, 1, now_ms(), b"{}"))
    outbox.commit()
    path = outbox.segments[-1].path
    outbox.close()
    db = apsw.Connection(str(path))
    db.execute(damage)
    db.close()
    outbox = opened(folder)
    assert waiting(outbox)[0] == held
    flush(outbox)
    outbox.commit()
    rows, told = delivered(outbox)
    assert set(rows) == {1} | held
    assert set(told) == {2, 3, 4, 5} - held
    assert lost <= set(told)
    outbox.close()
    outbox = opened(folder)
    assert outbox.committed("p1") == (EPOCH, 5)
    assert sorted(delivered(outbox)[1]) == sorted(told), "each once, also after the next start"
    outbox.close()
