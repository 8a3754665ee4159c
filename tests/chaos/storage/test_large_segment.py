"""A damaged segment of full size: the store starts within seconds, tells exactly what is lost."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bus.frames import GAP_ROW, Sample
from services.store_forward.outbox import Bounds, Outbox
from services.store_forward.segment import SEGMENT_BYTES
from tests.chaos.storage.flips import START_MAX_S
from tests.kit.oracle import Oracle

EPOCH = 1_764_000_000_000
BODY_BYTES = 700


def opened(folder: Path) -> Outbox:
    return Outbox(folder, "site", [("a", "oldest")], bounds=Bounds(min_free_bytes=0))


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Path, Oracle]]:
    """An outbox with one full segment, closed."""
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/dev/shm"))
    oracle, seq = Oracle(), 0
    outbox = opened(folder / "whole")
    while outbox.size_bytes < SEGMENT_BYTES - 2**20:
        for _ in range(1_000):
            seq += 1
            body = oracle.message("p1", BODY_BYTES)(EPOCH, seq)
            assert outbox.offer(Sample("p1", "acme", EPOCH, seq, seq, body)) == "ok"
        outbox.commit()
    assert len(outbox.segments) == 1
    outbox.reclaim()  # once a second it notes where streams stand
    outbox.close()
    yield folder, oracle
    shutil.rmtree(folder)


def flip(data: bytearray, *places: int) -> None:
    for at in places:
        data[at] ^= 0x10


def middle(data: bytearray) -> None:
    page = len(data) // 2 // 4096 * 4096
    flip(data, page, page + 2_000, page + 40 * 4096 + 7)


def header(data: bytearray) -> None:
    flip(data, 3)


def head_size(data: bytearray) -> None:
    flip(data, 31)


def last_page(data: bytearray) -> None:
    for at in range(len(data) - 4096, len(data), 64):
        flip(data, at)


def everywhere(data: bytearray) -> None:
    flip(data, *range(5 * 4096, len(data), 16 * 4096))


def truncated(data: bytearray) -> None:
    del data[len(data) * 2 // 3 + 100 :]


# The least share of rows that must be saved.
DAMAGE: dict[Callable[[bytearray], None], float] = {
         middle: 0.98, header: 0.0, head_size: 0.0, last_page: 0.98, everywhere: 0.5,
          truncated: 0.0}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_full_segment_is_salvaged_in_seconds(
    whole: tuple[Path, Oracle], damage: Callable[[bytearray], None]
) -> None:
    source, first = whole
    folder = source / "damaged"
    shutil.copytree(source / "whole", folder)
    try:
        (path,) = folder.glob("*.seg")
        data = bytearray(path.read_bytes())
        damage(data)
        path.write_bytes(data)
        began_s = time.process_time()
        outbox = opened(folder)
        took_s = time.process_time() - began_s
        oracle, at, slowest_s = Oracle(), 0, 0.0
        oracle.acquired = first.acquired
        while True:
            asked_s = time.process_time()
            rows = outbox.read("a", "live", at, 1_000)
            slowest_s = max(slowest_s, time.process_time() - asked_s)
            if not rows:
                break
            for row in rows:
                oracle.deliver(row.body, row.kind == GAP_ROW)
            at = rows[-1].pos
        outbox.close()
        share = len(oracle.delivered) / len(oracle.acquired)
        print(f"{damage.__name__}: start {took_s:.2f} s, read {slowest_s:.2f} s, {share:.4f} saved")
        oracle.check()
        assert took_s < START_MAX_S
        assert slowest_s < START_MAX_S
        assert share >= DAMAGE[damage]
    finally:
        shutil.rmtree(folder)
