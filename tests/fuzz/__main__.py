"""``python -m tests.fuzz --inputs N --seed S``: spoiled configurations, layouts and sources.

Each goes through the real command in this process: exit 0 or 2, no traceback, 2 s at most. Prints
how many there were of each kind, the slowest, and every finding with the number that brings it
again (``--only N``). Exits 1 where there is a finding.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tests.fuzz.run import Fuzzer, Outcome

CHUNK = 250
# A hang that Python cannot stop (in C) ends its process, which is a finding too.
HANG_S = 60


def main() -> int:
    """Runs all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="this one; --inputs 0: only its bytes")
    args = parser.parse_args()
    if args.only is not None:
        return only(args.seed, args.only, args.inputs == 0)
    began_s = time.monotonic()
    counts: Counter[tuple[str, str, int]] = Counter()
    slowest: tuple[float, int] = (0.0, 0)
    findings = 0
    chunks = [range(n, min(n + CHUNK, args.inputs)) for n in range(0, args.inputs, CHUNK)]
    with ProcessPoolExecutor(args.jobs, initializer=os.nice, initargs=(10,)) as pool:
        jobs = [(numbers, pool.submit(chunk, args.seed, numbers)) for numbers in chunks]
        for numbers, job in jobs:
            try:
                outcomes = job.result()
            except BrokenProcessPool:
                findings += 1
                print(f"\n--- the process died in inputs {numbers}", flush=True)
                break
            for number, outcome in zip(numbers, outcomes, strict=True):
                counts[outcome.kind, outcome.mutation, outcome.code] += 1
                slowest = max(slowest, (outcome.took_s, number))
                if outcome.fault:
                    findings += 1
                    print(f"\n--- number {number}\n{outcome.fault[-3_000:]}", flush=True)
    report(counts)
    took_s = time.monotonic() - began_s
    print(f"\n{sum(counts.values())} inputs in {took_s:.0f} s, seed {args.seed};", end=" ")
    print(f"slowest {slowest[0]:.2f} s (number {slowest[1]}); {findings} findings")
    return 1 if findings else 0


def chunk(seed: int, numbers: range) -> list[Outcome]:
    """Runs some inputs in a worker."""
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        outcomes = []
        for number in numbers:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            outcomes.append(fuzzer.run(number))
        faulthandler.cancel_dump_traceback_later()
    return outcomes


def only(seed: int, number: int, show: bool) -> int:
    """One input again."""
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        origin, mutation, content = fuzzer.make(number)
        if show:
            sys.stdout.buffer.write(content)
            return 0
        outcome = fuzzer.run(number)
    print(f"{origin.kind} {origin.name}, {mutation.__name__}: exit {outcome.code}", end=" ")
    print(f"in {outcome.took_s:.2f} s\n{outcome.fault}")
    return 1 if outcome.fault else 0


def report(counts: Counter[tuple[str, str, int]]) -> None:
    """A table: inputs of each kind and mutation, taken and refused."""
    print(f"{'kind':8} {'mutation':10} {'inputs':>8} {'exit 0':>8} {'exit 2':>8} {'other':>6}")
    for kind, mutation in sorted({(k, m) for k, m, _ in counts}):
        of = {code: n for (k, m, code), n in counts.items() if (k, m) == (kind, mutation)}
        total, good, refused = sum(of.values()), of.get(0, 0), of.get(2, 0)
        other = total - good - refused
        print(f"{kind:8} {mutation:10} {total:8} {good:8} {refused:8} {other:6}")


if __name__ == "__main__":
    sys.exit(main())
