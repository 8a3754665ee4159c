"""``python -m tests.chaos.control_plane --sequences 500``: a table; ends with 1 on any difference.

One kill in each sequence: of the control plane, of its PostgreSQL or of the broker. Both databases
at the same time, each with a control plane and a broker of its own.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.control_plane.driver import Driver, Verdict
from tests.kit.centre import DATABASES, Centre
from tests.kit.dynsec import Accounts

HEADER = (
    "| | sequences | operations | kills | done, and killed before the answer | differ | minutes |"
    "\n|---|---|---|---|---|---|---|"
)


def run(database: str, sequences: int, seed: int, seconds: float) -> Verdict:
    """All sequences on one database."""
    with Accounts() as broker, Centre(database, broker.section()) as centre:
        return Driver(centre, seed, broker=broker).run(sequences, seconds)


def line(database: str, v: Verdict) -> str:
    """A row of the table."""
    kills = ", ".join(f"{n} {victim}" for victim, n in sorted(v.kills.items()))
    cells = (database, v.sequences, v.operations, kills, v.replayed, len(v.wrong))
    return f"| {' | '.join(map(str, cells))} | {v.seconds / 60:.1f} |"


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.control_plane", description=__doc__
    )
    parser.add_argument("--sequences", type=int, default=500, help="on each database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no sequence after so long"
    )
    args = parser.parse_args()
    databases = args.database or DATABASES
    with ThreadPoolExecutor(len(databases)) as pool:
        runs = {d: pool.submit(run, d, args.sequences, args.seed, args.seconds) for d in databases}
    verdicts = {database: done.result() for database, done in runs.items()}
    wrong = [text for v in verdicts.values() for text in v.wrong]
    lines = [HEADER, *(line(d, v) for d, v in verdicts.items()), *wrong[:20]]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
