"""``python -m tests.chaos.opcua --kills 100``: Markdown tables; ends with 1 on any loss."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.kills.__main__ import table
from tests.chaos.opcua.driver import COUNTERS, Chaos, Counted, Plant


def counters(c: Counted) -> str:
    """The figures of the counters."""
    said = ", ".join(f"{what} {n}" for what, n in sorted(c.doubts.items()))
    lines = [
        "| counter, a step every | numbers delivered | holes told (numbers) | not told | back |",
        "|---|---|---|---|---|",
    ]
    for name, one in c.courses.items():
        told = f"{len(one.told)} ({one.missing})"
        if name == "polled":
            told = (
                f"read each scan: {one.missing + sum(b - a - 1 for a, b in one.untold)} passed by"
            )
        untold = "" if name == "polled" else len(one.untold)
        period = f"{name}, {COUNTERS[name][1]} ms"
        lines.append(f"| {period} | {one.count} | {told} | {untold} | {len(one.back)} |")
    return "\n".join([
        f"| faults of line and server | {sum(c.faults.values())}"
        f" ({', '.join(f'{k} {n}' for k, n in sorted(c.faults.items()))}) |",
        f"| messages that tell of a hole or a doubt | {said} |",
        f"| numbers that the server never had | {len(c.wrong)} |",
        "", *lines,
    ])  # fmt: skip


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.opcua", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Plant() as plant:
        chaos = Chaos(plant, args.seed)
        verdict = chaos.run(chaos.draw(args.kills))
    sys.stdout.write(f"{table(verdict)}\n{counters(chaos.counted)}\n")
    lost = [*verdict.lost, *chaos.counted.untold, *chaos.counted.back, *chaos.counted.wrong]
    for what in lost[:20]:
        sys.stdout.write(f"lost: {what}\n")
    return 0 if verdict.good and chaos.counted.good else 1


if __name__ == "__main__":
    sys.exit(main())
