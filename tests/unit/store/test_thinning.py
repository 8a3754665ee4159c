"""Whose turn it is when, with a real outbox and a clock of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from bus.frames import GAP_ROW, Sample
from services.runtime.clock import now_ms
from services.runtime.process import Timer
from services.store_forward import quota
from services.store_forward import thinning as thinning_module
from services.store_forward.outbox import Bounds, DiskFull, Outbox
from services.store_forward.segment import Segment
from services.store_forward.thinning import Thinning

EPOCH = 1_764_000_000_000


class Bench:
    """A thinning, its outbox, and as much of a process as it needs."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_000.0
        self.timers: list[Timer] = []
        self.events: list[str] = []
        self.outbox = Outbox(
            folder / "outbox", "site", [("a", "oldest")], bounds=Bounds(min_free_bytes=0)
        )
        self.thinning = Thinning(self, self.outbox, self.commit)  # type: ignore[arg-type]
        self.sent: list[tuple[float, str, int]] = []
        """(when, PLC, seq) of the rows."""
        self._at = 0

    def monotonic(self) -> float:
        return self.now_s

    def at(self, at_s: float, fn: Callable[[], None]) -> Timer:
        self.timers.append(Timer(at_s, fn, None))
        return self.timers[-1]

    def event(self, _level: str, code: str, text: str) -> None:
        self.events.append(f"{code}: {text}")

    def commit(self) -> None:
        self.outbox.commit()
        for row in self.rows(self._at):
            self._at = row.pos
            if row.kind != GAP_ROW:
                self.sent.append((self.now_s, row.plc, row.seq))

    def rows(self, after: int = 0) -> list[Any]:
        return self.outbox.read("a", "live", after, 100_000)

    def send(self, plc: str, tenant: str, points: int, epoch: int = EPOCH, **more: object) -> None:
        """The next row of a PLC."""
        known, seq = self.outbox.expected(plc)
        values = {f"f{i}": 1 for i in range(points)}
        body = orjson.dumps({"group": "g", "quality": "good", "values": values, **more})
        seq = seq + 1 if known == epoch else 1
        assert self.thinning.offer(Sample(plc, tenant, epoch, seq, now_ms(), body)) == "ok"

    def wait(self, seconds: float) -> None:
        """Lets time pass: timers, and every second what the store does."""
        end_s = self.now_s + seconds
        while True:
            self.timers = [t for t in self.timers if not t.cancelled]
            due = min(self.timers, key=lambda t: t.at_s, default=None)
            if due is None or due.at_s > end_s:
                break
            self.timers.remove(due)
            self.now_s = max(self.now_s, due.at_s)
            due.fn()
        self.now_s = end_s
        self.thinning.tell()
        self.commit()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/dev/shm"))
    it = Bench(folder)
    monkeypatch.setattr(thinning_module, "time", it)
    yield it
    it.outbox.close()
    shutil.rmtree(folder)


def test_a_heavy_tenant_does_not_stop_another_s_turn(bench: Bench) -> None:
    bench.thinning.configure({"a": 1, "b": 600}, {"pa": "a", "pb": "b"})
    for _ in range(5):
        bench.send("pa", "a", 500)  # owes for hours
        bench.wait(1)
    for _ in range(600):
        bench.send("pb", "b", 22)  # 1,320 a minute of 600
        bench.wait(1)
    came = [at_s for at_s, plc, _ in bench.sent if plc == "pb"]
    assert len(came) >= 0.95 * 600 * 600 / 60 / 22
    assert max(b - a for a, b in pairwise(came)) <= 4


def test_a_raised_limit_frees_what_waits(bench: Bench) -> None:
    bench.thinning.configure({"a": 60}, {"pa": "a"})
    for _ in range(8):
        bench.send("pa", "a", 500)
        bench.wait(1)
    assert bench.outbox.withheld.held
    bench.thinning.configure({"a": 1_000_000}, {"pa": "a"})
    bench.wait(1)
    assert not bench.outbox.withheld.held
    assert bench.sent[-1][2] == 8


def test_a_lowered_limit_does_not_send_early(bench: Bench) -> None:
    bench.thinning.configure({"a": 6_000}, {"pa": "a"})
    bench.send("pa", "a", 6_100)
    bench.send("pa", "a", 100)
    bench.thinning.configure({"a": 60}, {"pa": "a"})
    bench.wait(60)
    assert [seq for _, _, seq in bench.sent] == [1]
    bench.wait(60)
    assert [seq for _, _, seq in bench.sent] == [1, 2]


def notices(bench: Bench) -> set[tuple[str, int, int]]:
    """(tenant, epoch, seq) of what was withheld, as told; each once."""
    found: set[tuple[str, int, int]] = set()
    for row in bench.rows():
        if row.kind == GAP_ROW and (gap := orjson.loads(row.body))["reason"] == "quota":
            for first, last in gap["seqs"]:
                for seq in range(first, last + 1):
                    one = (gap["locatario_id"], gap["epoch"], seq)
                    assert row.locatario == gap["locatario_id"]
                    assert one not in found
                    found.add(one)
    return found


def sent_of(bench: Bench) -> set[tuple[str, int, int]]:
    return {(r.locatario, r.epoch, r.seq) for r in bench.rows() if r.kind != GAP_ROW}


def test_a_plc_that_becomes_another_tenant_s_is_told_of_to_each(bench: Bench) -> None:
    limits = {"acme": 2, "beta": 2}
    bench.thinning.configure(limits, {"p1": "acme"})
    for _ in range(6):
        bench.send("p1", "acme", 2)
        bench.wait(0.5)
    bench.thinning.configure(limits, {"p1": "beta"})
    for _ in range(7):
        bench.send("p1", "beta", 2)
        bench.wait(0.5)
    bench.wait(600)
    every = {("acme", EPOCH, n) for n in range(1, 7)} | {("beta", EPOCH, n) for n in range(7, 14)}
    assert sent_of(bench) | notices(bench) == every
    assert not sent_of(bench) & notices(bench)


def test_what_was_withheld_of_an_epoch_is_told_when_the_next_begins(bench: Bench) -> None:
    limits = {"acme": 2}
    bench.thinning.configure(limits, {"p1": "acme"})
    for _ in range(6):
        bench.send("p1", "acme", 2)
        bench.wait(0.5)
    bench.thinning.configure({}, {"p1": "acme"})
    bench.send("p1", "acme", 2, epoch=EPOCH + 1)
    bench.thinning.configure(limits, {"p1": "acme"})
    for _ in range(7):
        bench.send("p1", "acme", 2, epoch=EPOCH + 1)
        bench.wait(0.5)
    bench.wait(600)
    every = {("acme", EPOCH, n) for n in range(1, 7)}
    every |= {("acme", EPOCH + 1, n) for n in range(1, 9)}
    assert sent_of(bench) | notices(bench) == every
    assert not sent_of(bench) & notices(bench)


def test_a_change_that_was_not_committed_is_one_again(bench: Bench) -> None:
    bench.thinning.configure({"a": 60}, {"pa": "a"})
    bench.send("pa", "a", 500)
    bench.commit()
    bench.send("pa", "a", 1, quality="bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "append", full)
        with pytest.raises(DiskFull):
            bench.commit()
    bench.thinning.reload()
    bench.send("pa", "a", 1, quality="bad")  # the reader sends it again
    bench.commit()
    assert [seq for _, _, seq in bench.sent] == [1, 2]


def full(*_: object, **__: object) -> None:
    raise apsw.FullError


def test_what_flaps_at_each_scan_is_thinned_and_its_newest_state_comes(bench: Bench) -> None:
    bench.thinning.configure({"a": 60}, {"pa": "a"})
    bench.send("pa", "a", 100)
    for i in range(1_200):  # 10 minutes
        bench.send("pa", "a", 10, bad=[f"f{i % 2}"])
        bench.wait(0.5)
    # With each goes the one that waits before it; and a turn a minute of the quota's own.
    assert len(bench.sent) <= 2 * quota.CHANGES_PER_MIN * (10 + 1) + 10
    bench.send("pa", "a", 10, bad=["f9"])
    bench.wait(120)
    assert bench.sent[-1][2] == 1_202, "the state that stays comes"
    every = {("a", EPOCH, n) for n in range(1, 1_203)}
    assert sent_of(bench) | notices(bench) == every
