"""``python -m tests.chaos.history``: every fault, a Markdown table; the first broken promise ends
it. How many of a kind: ``--kills`` (200), ``--cuts`` (200), ``--pulls`` (50), ``--full`` (20),
``--flips`` (200); 0 leaves it out. ``--seed``.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.history import flips, full, kills, power, pulls

SAME = "history ∪ gaps = delivered = acquired, nothing twice"


def main() -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.history", description=__doc__)
    counts = {"kills": 200, "cuts": 200, "pulls": 50, "full": 20, "flips": 200, "seed": 1}
    for kind, count in counts.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    args = parser.parse_args()
    print("| fault | cases | result | figures | seconds |\n|---|---|---|---|---|", flush=True)
    if args.kills:
        with line("kill -9 of historian and store", SAME) as tell:
            tell |= kills.run(args.kills, args.seed)
    if args.cuts:
        with line("power cut, outbox and history", "history ∪ gaps = delivered") as tell:
            tell |= power.run(args.cuts, args.seed)
    if args.pulls:
        with line("power cut of a real file system", SAME) as tell:
            tell |= pulls.run(args.pulls, args.seed)
    if args.full:
        with line("disk full, and room again", SAME) as tell:
            tell |= full.run(args.full, args.seed)
    if args.flips:
        with line("bit flip or truncation of a file", "only its part missing, and told") as tell:
            tell |= flips.run(args.flips, args.seed)


@contextmanager
def line(what: str, result: str) -> Iterator[Counter[str]]:
    """A row, when nothing was broken."""
    tell: Counter[str] = Counter()
    began_s = time.monotonic()
    yield tell
    cases = tell.pop("cases")
    figures = ", ".join(f"{k}: {v:,}" for k, v in sorted(tell.items()))
    took_s = time.monotonic() - began_s
    print(f"| {what} | {cases:,} | {result} | {figures} | {took_s:.0f} |", flush=True)


if __name__ == "__main__":
    main()
