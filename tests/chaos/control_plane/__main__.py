"""``python -m tests.chaos.control_plane --sequences 500``: a table; ends with 1 on any difference.

500 sequences with a kill each take some 15 minutes a database.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.control_plane.driver import Driver
from tests.kit.centre import DATABASES, Centre


def main() -> int:
    """Runs it on both databases."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.control_plane", description=__doc__
    )
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES, action="append")
    args = parser.parse_args()
    wrong: list[str] = []
    lines = ["| | sequences | operations | kills | done, and killed before the answer | differ |"]
    lines.append("|---|---|---|---|---|---|")
    for database in args.database or DATABASES:
        with Centre(database) as centre:
            v = Driver(centre, args.seed).run(args.sequences)
        wrong += v.wrong
        lines.append(
            f"| {database} | {v.sequences} | {v.operations} | {v.kills} | {v.replayed} |"
            f" {len(v.wrong)} |"
        )
    sys.stdout.write("\n".join([*lines, *wrong[:20]]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
