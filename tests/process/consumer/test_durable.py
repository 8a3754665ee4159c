"""A consumer with a database of its own, beside a real store_forward: killed anywhere, it misses
nothing and counts nothing twice.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus.frames import SAMPLE_ROW
from tests.kit.common import until
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source
from tests.kit.store_rig import STORE_CONFIG

POINTS = ("taken", "before_commit", "after_commit", "before_receipt")


class World:
    """The store, two readers' sequences, and what the tally's database says."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.sources = [Source(run, f"p{i}") for i in (1, 2)]
        self.count = self.sum = 0

    def store(self) -> dict[str, Any]:
        output = {"name": "tally", "locatarios": None, "from": "oldest", "strict": True}
        return {
            "process": "store_forward", "folder": "store_forward", "item": "", "site": "planta-sp",
            "locatario": "acme", "runtime": str(self.run), "state": str(self.run),
            "store": {**STORE_CONFIG, "replay": {**STORE_CONFIG["replay"], "mode": "lanes"}},
            "outputs": [output], "plcs": [{"id": s.plc, "locatario": "acme"} for s in self.sources],
        }  # fmt: skip

    def tally(self, **options: Any) -> dict[str, Any]:
        return {
            "process": "tally", "folder": "tally", "runtime": str(self.run),
            "state": str(self.run), "database": str(self.run / "tally.db"), "window": 20,
            "commit_s": 0.0, "refuse": 0, **options,
        }  # fmt: skip

    def feed(self, count: int) -> None:
        """So many messages of each PLC."""
        for _ in range(count):
            for source in self.sources:
                self.count += 1
                self.sum += self.count
                body = b'{"n":%d}' % self.count
                source.publish(lambda _epoch, _seq, body=body: body)  # type: ignore[misc]
        for source in self.sources:
            source.step()

    def feed_until_dead(self, victim: Service) -> None:
        deadline_s = time.monotonic() + 15
        while victim.process.poll() is None:
            self.feed(3)
            assert time.monotonic() < deadline_s, f"it still runs\n{victim.stderr()}"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.run / "tally.db") as db:
            return db.execute(sql).fetchall()

    def check(self) -> None:
        """Waits for the last one; then all are there, each once."""
        for source in self.sources:
            source.drain()
        rows = "SELECT rows FROM total"
        until(lambda: self.ask(rows)[0][0] >= self.count, 15, lambda: f"{self.ask(rows)} counted")
        assert self.ask("SELECT rows, sum FROM total") == [(self.count, self.sum)]
        assert self.ask("SELECT * FROM seen WHERE times != 1") == []
        assert self.ask("SELECT * FROM wrong") == []
        kinds = self.ask("SELECT kind, count(*) FROM seen GROUP BY kind")
        assert kinds == [(SAMPLE_ROW, self.count)]

    def close(self) -> None:
        for source in self.sources:
            source.close()


@contextmanager
def world() -> Iterator[World]:
    with run_folder() as run:
        it = World(run)
        try:
            yield it
        finally:
            it.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_anywhere_it_misses_nothing_and_counts_nothing_twice(seed: int) -> None:
    chance = random.Random(seed)
    with world() as w:
        store = Service(w.store())
        try:
            for n in range(12):
                point = f"consumer.{POINTS[n % 4]}:{chance.randint(1, 8)}"
                with service(
                    w.tally(window=chance.choice((2, 7, 200))),
                    {"PLC_EDGE_FAILPOINT": point},
                    package="tests.kit",
                ) as doomed:
                    if n % 3 == 2:
                        store.kill()
                        w.feed(chance.randint(1, 50))
                        store = Service(w.store())
                    w.feed_until_dead(doomed)
            with service(w.tally(), package="tests.kit"):
                w.check()
        finally:
            store.end()


def test_killed_at_any_time_beside_its_store() -> None:
    chance = random.Random(3)
    with world() as w:
        store = Service(w.store())
        try:
            for _ in range(8):
                with service(w.tally(commit_s=chance.choice((0.0, 0.03))), package="tests.kit"):
                    end_s = time.monotonic() + chance.uniform(0.05, 0.5)
                    while time.monotonic() < end_s:
                        w.feed(1)
                    if chance.random() < 0.5:
                        store.kill()
                        store = Service(w.store())
            with service(w.tally(), package="tests.kit"):
                w.check()
        finally:
            store.end()


def test_a_commit_that_must_wait_is_said_and_made_again() -> None:
    with world() as w, service(w.store()), service(w.tally(refuse=2), package="tests.kit") as tally:
        w.feed(30)
        w.check()
        tally.wait_said("output_disk_full")
        tally.wait_said("no room for the tally")
        w.feed(30)
        w.check()
        assert tally.terminate() == 0


def test_a_database_that_is_away_for_longer_is_waited_for() -> None:
    """At the start, and after a commit that failed."""
    with (
        world() as w,
        service(w.store()),
        service(w.tally(refuse=1, away=1), package="tests.kit") as tally,
    ):
        w.feed(30)
        w.check()
        tally.wait_said("output_disk_full")
        assert len([line for line in tally.text if '"output_away"' in line]) == 2
        w.feed(30)
        w.check()
        assert tally.terminate() == 0
