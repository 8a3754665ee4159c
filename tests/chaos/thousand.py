"""``python -m tests.chaos.thousand``: a thousand simulated boxes on a real Mosquitto; a Markdown
table; ends with 1 on any loss or disorder.

First all boxes send for ``--minutes``. Then, as new ones, they come with a backlog of ``--backlog``
and drain it while live messages go on. ``--find`` doubles the number of boxes instead, for 30 s
each, until they are too many for this machine.

A counting subscriber with a persistent session takes all of it at QoS 1; several with
``--subscribers``, on one shared subscription. Broker, simulators and subscribers share the machine,
and are counted apart. The broker has the limits of the rendered one (infra/templates/mosquitto).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tests.bench.watch import Cpu
from tests.kit.arrivals import Verdict, judge, percentile_ms
from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.counting_client import CountingClient
from tests.kit.many_boxes import ManyBoxes, box_config

# As rendered. 1,000 connections are the rendered listener's limit too; here boxes are not all.
LIMITS = "max_inflight_messages 2000\nmax_queued_messages 100000\nmax_queued_bytes 268435456"
SHARED = "$share/counters/"
SETTLE_S = 5.0
LOOK_S = 5.0
# Nothing more is on its way to a subscriber that has got nothing for so long.
QUIET_S = 3.0
# Carried: live messages arrive within a second (p99), and as many as are due.
CARRIED_MS, CARRIED_SHARE = 1_000, 0.995


@dataclass(frozen=True, slots=True)
class Load:
    """How many boxes, of what, into what."""

    boxes: int
    plcs: int = 10
    scan: str = "1s"
    values: int = 10
    commit: str = "0s"
    tls: bool = False
    simulators: int = 1
    subscribers: int = 1
    points: bool = False
    """The subscribers keep what a database would."""


@dataclass(slots=True)
class Stretch:
    """Some time at one load."""

    seconds: float = 0.0
    messages: int = 0
    replayed: int = 0
    ages_ms: Counter[int] = field(default_factory=Counter)
    cpu: dict[str, float] = field(default_factory=dict)
    """Percent of a core."""
    idle: float = 0.0
    """Percent of the machine."""

    def age_ms(self, percent: float) -> int:
        """Of live messages on arrival."""
        return percentile_ms(sorted(self.ages_ms.items()), percent)

    @property
    def rate(self) -> float:
        """Messages a second at the subscriber."""
        return self.messages / self.seconds

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {percent:.0f} %" for name, percent in self.cpu.items())
        return (
            f"{self.rate:,.0f} messages/s ({self.replayed / self.seconds:,.0f} replayed),"
            f" live p50 {self.age_ms(50)} ms, p99 {self.age_ms(99)} ms; {cpu};"
            f" machine {self.idle:.0f} % idle"
        )


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    stretch: Stretch
    verdict: Verdict
    disordered: int
    repeats: int
    wrong: list[str]
    left: int
    """Messages that the boxes still had at the end."""
    dropped: int
    """By the broker, as it says."""

    @property
    def good(self) -> bool:
        """Nothing lost, nothing out of order, nothing changed."""
        return not (self.verdict.lost or self.disordered or self.wrong)


class Plant:
    """Broker and subscribers, and boxes that come and go."""

    def __init__(self, load: Load, options: str = LIMITS) -> None:
        self.load = load
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.broker = self._stack.enter_context(Broker(tls=load.tls, options=options))
        topics = ["plc/+/+", "plc/+/+/gap"]
        if load.subscribers > 1:
            topics = [SHARED + topic for topic in topics]
        self.counters = [self.subscribe(f"counter-{n}", topics) for n in range(load.subscribers)]
        self._seen = (0, 0)

    def subscribe(self, name: str, topics: list[str]) -> CountingClient:
        """One more subscriber."""
        ca = self.broker.authority.ca if self.broker.authority else None
        client = CountingClient(self.broker.port, name, topics, ca=ca, points=self.load.points)
        return self._stack.enter_context(client)

    def close(self) -> None:
        """All of it."""
        self._stack.close()

    @contextlib.contextmanager
    def boxes(self, backlog: str = "0s", max_rate: int | None = None) -> Iterator[list[ManyBoxes]]:
        """All boxes, connected; shared out among the simulators."""
        load = self.load
        config = box_config(self.broker, load.plcs, load.scan, load.values)
        config["store"]["commit"] = load.commit
        if max_rate is not None:
            config["store"]["replay"]["max_rate"] = max_rate
        share = -(-load.boxes // load.simulators)
        with contextlib.ExitStack() as stack:
            found = [
                stack.enter_context(
                    ManyBoxes(
                        config, min(share, load.boxes - first), "--first", str(first + 1),
                        "--backlog", backlog,
                    )
                )
                for first in range(0, load.boxes, share)
            ]  # fmt: skip
            yield found

    def measure(self, boxes: list[ManyBoxes], seconds: float) -> Stretch:
        """What passes within so long."""
        self._reports()
        pids = {
            "broker": [self.broker.pid],
            "simulators": [b.process.pid for b in boxes],
            "subscribers": [c.process.pid for c in self.counters],
        }
        psutil.cpu_percent()
        cpu = {name: Cpu(some) for name, some in pids.items()}
        stretch, begin_s = Stretch(), time.monotonic()
        while (left_s := begin_s + seconds - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))
            self._take(stretch)
        stretch.seconds = time.monotonic() - begin_s
        stretch.cpu = {name: c.percent() for name, c in cpu.items()}
        stretch.idle = 100 - psutil.cpu_percent()
        return stretch

    def _reports(self) -> list[dict[str, Any]]:
        found = [counter.report() for counter in self.counters]
        self._seen = (sum(r["messages"] for r in found), sum(r["replayed"] for r in found))
        return found

    def _take(self, stretch: Stretch) -> None:
        messages, replayed = self._seen
        found = self._reports()
        stretch.messages += self._seen[0] - messages
        stretch.replayed += self._seen[1] - replayed
        for report in found:
            for age_ms, count in report["ages_ms"]:
                stretch.ages_ms[age_ms] += count

    def judge(self, boxes: list[ManyBoxes], stretch: Stretch) -> Outcome:
        """Ends the boxes; what they say was acknowledged against what came."""
        left = sum(b.status()["pending"] for b in boxes)
        for b in boxes:
            assert b.end() == 0, b.errors()
        # What the broker has queued for the subscribers is on its way.
        last, since_s = -1, time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            reports = self._reports()
            if (now := sum(r["messages"] for r in reports)) != last:
                last, since_s = now, time.monotonic()
            time.sleep(0.1)
        dumps = [c.dump(self.folder / f"came-{n}") for n, c in enumerate(self.counters)]
        # On a shared subscription nobody promises an order across its members.
        alone = len(self.counters) == 1
        return Outcome(
            stretch,
            judge([b.account for b in boxes], dumps),
            sum(r["disordered"] for r in reports) if alone else 0,
            sum(r["repeats"] for r in reports),
            [w for r in reports for w in r["wrong"]],
            left,
            self.broker.log().count("being dropped"),
        )


def steady(plant: Plant, seconds: float, settle_s: float = SETTLE_S) -> Outcome:
    """All boxes send; then they stop, and all of it must have come."""
    with plant.boxes() as boxes:
        time.sleep(settle_s)
        stretch = plant.measure(boxes, seconds)
        for b in boxes:
            b.tell("quiet")
        say(f"  {stretch}")
        until(
            lambda: not any(b.status()["pending"] for b in boxes), 120,
            lambda: f"the boxes' last messages: {[b.status() for b in boxes]}",
        )  # fmt: skip
        return plant.judge(boxes, stretch)


def storm(plant: Plant, backlog: str, max_rate: int | None, seconds: float) -> Outcome:
    """All boxes come with a backlog and drain it, for ``seconds`` at most."""
    with plant.boxes(backlog, max_rate) as boxes:
        stretch = Stretch()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            part = plant.measure(boxes, LOOK_S)
            if not part.replayed:
                break
            say(f"  {part}")
            stretch.ages_ms += part.ages_ms
            stretch.messages += part.messages
            stretch.replayed += part.replayed
            for name, percent in part.cpu.items():
                stretch.cpu[name] = stretch.cpu.get(name, 0) + percent * part.seconds
            stretch.idle += part.idle * part.seconds
            stretch.seconds += part.seconds
        stretch.cpu = {name: sum_ / stretch.seconds for name, sum_ in stretch.cpu.items()}
        stretch.idle /= stretch.seconds
        return plant.judge(boxes, stretch)


def find(load: Load, first: int, seconds: float) -> None:
    """Doubles the boxes until they are too many."""
    boxes = first
    while True:
        plant = Plant(replace(load, boxes=boxes))
        try:
            with plant.boxes() as running:
                time.sleep(SETTLE_S)
                stretch = plant.measure(running, seconds)
        finally:
            plant.close()
        due = boxes * load.plcs
        say(f"{boxes} boxes, {due:,} messages/s due: {stretch}")
        if stretch.age_ms(99) > CARRIED_MS or stretch.rate < CARRIED_SHARE * due:
            say(f"{boxes} boxes are too many for this machine")
            return
        boxes *= 2


def table(title: str, outcome: Outcome) -> str:
    """The figures of one run."""
    s, v = outcome.stretch, outcome.verdict
    rows = [
        ("for", f"{s.seconds:.0f} s"),
        ("messages/s at the subscriber", f"{s.rate:,.0f}, {s.replayed / s.seconds:,.0f} replayed"),
        ("live messages, age on arrival", f"p50 {s.age_ms(50)} ms, p99 {s.age_ms(99)} ms"),
        ("CPU, % of a core", ", ".join(f"{n} {p:.0f}" for n, p in s.cpu.items())),
        ("machine idle", f"{s.idle:.0f} %"),
        ("made, acknowledged, came", f"{v.made:,}, {v.acknowledged:,}, {v.came:,}"),
        ("lost (acknowledged, not come)", f"{v.lost_messages:,}"),
        ("out of order at first delivery", str(outcome.disordered)),
        ("repeated", str(outcome.repeats)),
        ("the broker says that it drops", f"{outcome.dropped} times"),
        ("still waiting in the boxes", f"{outcome.left:,}"),
    ]
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {k} | {t} |" for k, t in rows)])


def say(text: str) -> None:
    """At once: a run takes long."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.thousand", description=__doc__)
    parser.add_argument("--boxes", type=int, default=1_000)
    parser.add_argument("--plcs", type=int, default=10)
    parser.add_argument("--values", type=int, default=10)
    parser.add_argument("--commit", default="0s", help="store.commit of each box")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backlog", default="1h", help="0s: no storm")
    parser.add_argument("--max-rate", type=int, help="store.replay.max_rate of each box")
    parser.add_argument("--storm-minutes", type=float, default=8)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--simulators", type=int, default=1)
    parser.add_argument("--subscribers", type=int, default=1)
    parser.add_argument("--find", type=int, metavar="BOXES", help="double from so many")
    args = parser.parse_args()
    load = Load(args.boxes, args.plcs, values=args.values, commit=args.commit, tls=args.tls,
                simulators=args.simulators, subscribers=args.subscribers)  # fmt: skip
    if args.find:
        find(load, args.find, 30)
        return 0
    good = True
    plant = Plant(load)
    try:
        named = f"{load.boxes:,} boxes × {load.plcs} PLCs"
        if args.minutes:
            outcome = steady(plant, args.minutes * 60)
            say(table(f"{named}, steady", outcome))
            good &= outcome.good
        if args.backlog != "0s":
            outcome = storm(plant, args.backlog, args.max_rate, args.storm_minutes * 60)
            say(table(f"{named}, a backlog of {args.backlog}", outcome))
            good &= outcome.good
    finally:
        plant.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
