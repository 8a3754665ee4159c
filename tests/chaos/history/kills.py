"""``kill -9`` of the real historian and the real store, at failpoints and at random, while two
readers send; now and then the history is read beside them.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from services.runtime import loader, render
from tests.chaos.history.judge import Held, Plant, check, check_rolled, held
from tests.kit.common import until
from tests.kit.procs import Service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source

PLCS = ("p1", "p2")
_PLC = (
    "  - {{id: {plc}, host: 127.0.0.1, groups: [{{name: rapido, scan: 500ms, db: 500,"
    " fields: [{{name: temperatura, type: REAL, offset: 0}}]}}]}}\n"
)
CONFIG = (
    "site: planta-sp\nlocatario: acme\npaths: {{state: {state}, runtime: {run}}}\nplcs:\n{plcs}"
    "store: {{min_free: 0MiB}}\noutputs: []\nhistory: {{min_free: 0MiB}}\n"
)
HISTORIAN_POINTS = ("consumer.taken", "consumer.before_commit", "consumer.after_commit",
                    "consumer.before_receipt", "historian.saving", "historian.flushed",
                    "historian.rolled", "historian.sealed")  # fmt: skip
STORE_POINTS = ("store.before_commit", "store.after_commit", "store.after_deliver")


class World:
    """The run directory, two sources, both processes; ``state`` is where these keep their files."""

    def __init__(self, run: Path, draw: random.Random, state: Path) -> None:
        self.run, self.draw, self.state = run, draw, state
        file = run / "config.yaml"
        plcs = "".join(_PLC.format(plc=plc) for plc in PLCS)
        file.write_text(CONFIG.format(run=run, state=state, plcs=plcs))
        self.rendered = render.render(loader.load(file, {}))
        (run / "conf").mkdir()
        self.sources = {plc: Source(run, plc) for plc in PLCS}
        self.plant = Plant(draw, list(PLCS), 20_000)
        self._running: dict[str, Service] = {}

    def start(self, name: str, failpoint: str = "") -> Service:
        """``store_forward`` or ``historian``, (again)."""
        found = self._running[name] = Service(
            self.rendered[name], {"PLC_EDGE_FAILPOINT": failpoint}
        )
        return found

    def kill(self, name: str) -> None:
        self._running[name].end()

    def stop(self) -> None:
        """SIGSTOP: both stand still."""
        for running in self._running.values():
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGSTOP)

    def feed(self, count: int = 1) -> None:
        """Messages of each PLC."""
        for plc, source in self.sources.items():
            for _ in range(self.draw.randint(0, 2 * count)):
                members = orjson.dumps(self.plant.members(plc))[1:-1]

                def make(e: int, s: int, plc: str = plc, members: bytes = members) -> bytes:
                    named = b'{"plc_id":"%s","epoch":%d,"seq":%d,' % (plc.encode(), e, s)
                    return self.plant.take(plc, named + members + b"}")

                source.publish(make)
            source.turn()

    def read(self) -> Held:
        """What is there now; nothing of it is wrong."""
        found = held(self.state / "history", self.plant, list(PLCS))
        check(found, set())
        return found

    def settle(self) -> Held:
        """Everything fed is in the history."""
        for source in self.sources.values():
            source.drain(60)

        def all_there() -> bool:
            return len(self.read().messages) >= len(self.plant.fed)

        until(all_there, 60, lambda: f"{len(self.read().messages)} of {len(self.plant.fed)}"
              f"\n{self._running['historian'].stderr()}")  # fmt: skip
        found = self.read()
        check(found, set(self.plant.fed))
        check_rolled(self.state / "history", found)
        return found

    def close(self) -> None:
        for running in self._running.values():
            running.end()
        for source in self.sources.values():
            source.close()


@contextmanager
def world(draw: random.Random, state: Path | None = None) -> Iterator[World]:
    """The store runs."""
    with run_folder() as run:
        it = World(run, draw, state or run)
        try:
            it.start("store_forward").wait_ready()
            yield it
        finally:
            it.close()


def die_at_a_point(w: World, point: str, tell: Counter[str]) -> None:
    """The historian or the store ends itself there; where it does not come there, it is killed."""
    name = "store_forward" if point.startswith("store") else "historian"
    if name == "store_forward":
        w.kill(name)
    doomed = w.start(name, f"{point}:{w.draw.randint(1, 6)}")
    if name == "store_forward":
        w.start("historian")
    end_s = time.monotonic() + 10
    while doomed.process.poll() is None and time.monotonic() < end_s:
        w.feed(3)
        time.sleep(0.01)  # the pace of a plant, not a wait
    tell[point if doomed.process.poll() is not None else f"{point} not reached"] += 1
    w.kill("historian")
    if name == "store_forward":
        w.kill(name)
        w.start(name)


def die_at_random(w: World, tell: Counter[str]) -> None:
    """One or both, at any moment."""
    w.start("historian")
    end_s = time.monotonic() + w.draw.uniform(0.3, 1.5)
    while time.monotonic() < end_s:
        w.feed(2)
        time.sleep(0.01)
    both = w.draw.random() < 0.3
    w.kill("historian")
    if both:
        w.kill("store_forward")
        w.start("store_forward")
    tell["both at random" if both else "historian at random"] += 1


def run(kills: int, seed: int = 1) -> Counter[str]:
    """So many, on one site."""
    tell: Counter[str] = Counter()
    points = [*HISTORIAN_POINTS, *STORE_POINTS]
    with world(random.Random(seed)) as w:
        for n in range(kills):
            if n % 2:
                die_at_random(w, tell)
            else:
                die_at_a_point(w, points[n // 2 % len(points)], tell)
            if n % 10 == 9:
                w.read()
        w.start("historian")
        found = w.settle()
        tell["messages"], tell["in the history"] = len(w.plant.fed), len(found.messages)
    tell["cases"] = kills
    return tell
