"""``python -m tests.chaos.s7plus --kills 100``: a Markdown table; ends with 1 on any loss."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.kills.__main__ import table
from tests.chaos.s7plus.driver import Plant, run


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.s7plus", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Plant() as plant:
        verdict, faults = run(plant, args.kills, args.seed)
    sys.stdout.write(table(verdict) + "\n")
    sys.stdout.write(f"| faults of line and CPU | {faults} |\n")
    for what in verdict.lost[:20]:
        sys.stdout.write(f"lost: {what}\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
