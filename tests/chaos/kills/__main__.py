"""``python -m tests.chaos.kills --kills 1000``: a Markdown table; ends with 1 on any loss.

1,000 kills take 15 minutes. A process that comes back reads its modules anew, so nobody may edit
the tree meanwhile: run it from a clean checkout.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from tests.chaos.kills.driver import BACK_S, Driver, Verdict
from tests.kit.box import Box


def table(v: Verdict) -> str:
    """The figures of one run."""
    victims = ", ".join(f"{name} {n}" for name, n in sorted(v.victims.items()))
    rows = [
        ("kills", f"{sum(v.kills.values())} ({', '.join(f'{k} {n}' for k, n in v.kills.items())})"),
        ("processes killed", f"{sum(v.victims.values())} ({victims})"),
        ("duration", f"{v.seconds:.0f} s"),
        ("messages acquired", f"{v.acquired} in {v.epochs} sequences"),
        ("lost", str(len(v.lost))),
        ("in gap records", str(v.gap_rows)),
        ("out of order at first delivery", str(len(v.disordered))),
        ("repeated, allowed", f"{v.repeats}, {v.repeats_allowed}"),
        ("repeated with other content", str(v.changed)),
        ("current again after the last kill", f"{v.drained_s:.1f} s"),
    ]
    if v.back_s:
        late = sum(s > BACK_S for s in v.back_s)
        rows.append(
            (
                "killed process back (median, worst)",
                f"{statistics.median(v.back_s):.1f} s, {max(v.back_s):.1f} s;"
                f" {late} of {len(v.back_s)} later than {BACK_S:.0f} s",
            )
        )
    for name, (first, last) in sorted(v.memory_mb.items()):
        rows.append((f"memory of {name}, fresh and at the end", f"{first:.0f} MB, {last:.0f} MB"))
    lines = ["| random `kill -9` | |", "|---|---|", *(f"| {k} | {t} |" for k, t in rows)]
    return "\n".join(lines)


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--plcs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Box(plcs=args.plcs, scan="50ms") as box:
        verdict = Driver(box, args.seed).run(args.kills)
    sys.stdout.write(table(verdict) + "\n")
    for what in verdict.lost[:20]:
        sys.stdout.write(f"lost: {what}\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
