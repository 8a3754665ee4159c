"""``python -m tests.chaos.soak --hours 2``: a year's faults in a night; ends in a Markdown table.

Four PLCs are read every 50 ms (twenty times the usual rate) through a broker's line that a proxy
breaks in every way it knows, while PLCs lose power, stop or refuse to be read. In the first third
processes, supervisord and all at once are killed too; in the rest nobody is, so that what leaks
shows. A short run: ``--hours 0.05``. Ends with 1 on a loss, disorder or changed message.

A process that comes back reads its modules anew, so nobody may edit the tree meanwhile: run it from
a clean checkout.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.kills.driver import KINDS, Driver
from tests.kit.box import Box
from tests.kit.judge import Judge
from tests.kit.proxy import Proxy

PLCS, SCAN = 4, "50ms"
KILLING_SHARE = 1 / 3
SAMPLE_S = 20.0
LINE_FAULTS = ["refuse", "reset", "blackhole", "half_open", "delay", "drip", "slow", "cut_ack"]
# What is done to a PLC and how it is undone.
PLC_FAULTS = {"down": "up", "stop": "run", "refuse": "permit"}


@dataclass
class Soak:
    """One run and what it measured."""

    box: Box
    line: Proxy
    seed: int
    judge: Judge = field(default_factory=Judge)
    faults: Counter[str] = field(default_factory=Counter)
    memory_mb: dict[str, list[float]] = field(default_factory=dict)
    """Process -> resident memory, a sample every 20 s; only after the killing."""
    descriptors: dict[str, list[int]] = field(default_factory=dict)
    disk_mb: dict[str, list[float]] = field(default_factory=dict)
    """Folder -> its size, from the beginning."""
    starts: dict[str, int] = field(default_factory=dict)
    """Process -> pid after the killing."""

    def run(self, seconds: float) -> None:
        """Breaks things for so long, then waits until all has arrived."""
        self._random = random.Random(self.seed)
        self._killer = Driver(self.box, self.seed)
        begin_s = time.monotonic()
        self._next_sample_s = begin_s
        while (passed_s := time.monotonic() - begin_s) < seconds * KILLING_SHARE:
            self._break_something(killing=True)
        self.box.site.wait_running(60)
        self.starts = self._pids()
        while (passed_s := time.monotonic() - begin_s) < seconds:
            self._break_something(killing=False)
            sys.stderr.write(f"\r{passed_s / 60:.0f} min, {self.judge.delivered} messages  ")
        self._settle()

    def _break_something(self, killing: bool) -> None:
        kinds = ["line", "line", "plc", *(["kill"] * 3 if killing else [])]
        kind = self._random.choice(kinds)
        if kind == "line":
            fault = self._random.choice(LINE_FAULTS)
            self.faults[f"line: {fault}"] += 1
            self.line.fault = fault
            self._pass_time(self._random.uniform(1, 15))
            self.line.fault = None
        elif kind == "plc":
            plc = self._random.choice(self.box.config["plcs"])["id"]
            verb = self._random.choice(sorted(PLC_FAULTS))
            self.faults[f"PLC: {verb}"] += 1
            self.box.simulator.tell(f"{verb} {plc}")
            self._pass_time(self._random.uniform(1, 10))
            self.box.simulator.tell(f"{PLC_FAULTS[verb]} {plc}")
        else:
            how = self._random.choice(KINDS)
            self.faults[f"kill -9: {how}"] += 1
            self._killer.kill_some(how)
        self._pass_time(self._random.uniform(0.5, 6))

    def _pass_time(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(0.1)
            self._take()
            if time.monotonic() >= self._next_sample_s:
                self._next_sample_s += SAMPLE_S
                self._sample()

    def _take(self) -> None:
        received = self.box.subscriber.received
        count = len(received)
        for topic, payload, _ in received[:count]:
            self.judge.take(topic, payload)
        del received[:count]

    def _pids(self) -> dict[str, int]:
        assert self.box.site.process is not None
        pids = {n: int(r["pid"]) for n, r in self.box.site.table().items()}
        return {**pids, "supervisord": int(self.box.site.rpc.getPID())}

    def _sample(self) -> None:
        for name in ("outbox", "log"):
            self.disk_mb.setdefault(name, []).append(size_mb(self.box.site.state / name))
        self.disk_mb.setdefault("runtime (tmpfs)", []).append(size_mb(self.box.site.runtime))
        for name, pid in self.starts.items():
            process = psutil.Process(pid)
            self.memory_mb.setdefault(name, []).append(process.memory_info().rss / 1e6)
            self.descriptors.setdefault(name, []).append(process.num_fds())

    def _settle(self) -> None:
        """Until a message that was read less than a second ago has come of every PLC."""
        assert self.starts == self._pids(), "somebody died who was not killed"
        deadline_s = time.monotonic() + 120
        plcs = [p["id"] for p in self.box.config["plcs"]]
        while any(time.time() * 1e3 - self.judge.newest_ts_ms.get(p, 0) > 1_000 for p in plcs):
            assert time.monotonic() < deadline_s, self.box.site.logs()
            self._pass_time(0.2)

    @property
    def good(self) -> bool:
        """Nothing is lost, out of order or changed, and no sequence began anew."""
        j = self.judge
        return not (j.lost or j.disordered or j.changed or j.epochs != PLCS)

    def table(self, hours: float) -> str:
        """Markdown."""
        j = self.judge
        rows = [
            ("duration, of which with kills", f"{hours:g} h, {hours * KILLING_SHARE * 60:.0f} min"),
            ("faults", f"{self.faults.total()}: {counted(self.faults)}"),
            ("messages acquired", f"{j.acquired} in {j.epochs} sequences"),
            ("lost", str(len(j.lost))),
            ("told of in gaps", str(j.told)),
            ("out of order at first delivery", str(len(j.disordered))),
            ("repeated, of which changed", f"{j.repeats}, {j.changed}"),
        ]
        for what, values in self.disk_mb.items():
            rows.append((f"{what}: first quarter, last quarter, most", quarters(values) + " MB"))
        for name, values in self.memory_mb.items():
            text = f"{quarters(values)} MB; fds {quarters([*map(float, self.descriptors[name])])}"
            rows.append((f"memory of {name}, after the kills", text))
        lines = ["| soak | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
        return "\n".join(lines)


def counted(counts: Counter[str]) -> str:
    """In words."""
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def quarters(values: list[float]) -> str:
    """Median of the first and of the last quarter, and the largest."""
    part = max(1, len(values) // 4)
    first, last = statistics.median(values[:part]), statistics.median(values[-part:])
    return f"{first:.1f}, {last:.1f}, {max(values):.1f}"


def size_mb(folder: Path) -> float:
    """Of all files in it, as the disk counts them."""
    blocks = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                blocks += os.stat(os.path.join(where, name), follow_symlinks=False).st_blocks
            except FileNotFoundError:
                continue  # given back meanwhile
    return blocks * 512 / 1e6


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Box(PLCS, SCAN) as box, Proxy(box.broker.port) as line:
        box.config["outputs"][0]["port"] = line.port
        box.site.configure(box.config)
        applied = box.site.run("apply")
        assert applied.returncode == 0, applied.stderr
        soak = Soak(box, line, args.seed)
        soak.run(args.hours * 3_600)
        sys.stdout.write("\n" + soak.table(args.hours) + "\n")
        for what in soak.judge.lost[:20]:
            sys.stdout.write(f"lost: {what}\n")
    return 0 if soak.good else 1


if __name__ == "__main__":
    sys.exit(main())
