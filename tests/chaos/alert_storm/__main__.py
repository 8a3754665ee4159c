"""Long proofs of the alert engine, with real processes; each prints a Markdown table and ends with
1 where it does not hold. Run them from a checkout that nobody edits.

    python -m tests.chaos.alert_storm --minutes 5                  kill -9 every second, at the box
    python -m tests.chaos.alert_storm --minutes 5 --where centre   the same at the centre
    python -m tests.chaos.alert_storm backlog --messages 172800    a day's backlog in one burst
    python -m tests.chaos.alert_storm soak --minutes 60            memory of the centre's process
    python -m tests.chaos.alert_storm away --minutes 60            the broker is away: told on time
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tests.chaos.alert_storm import away, backlog, soak, storm

Figures = list[tuple[str, str]]


def main() -> int:
    """Runs one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.alert_storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="?", default="storm", choices=("storm", "backlog", "soak", "away")
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--where", choices=("box", "centre"), default="box", help="of the storm")
    parser.add_argument(
        "--messages", type=int, default=172_800, help="of the backlog: 2/s for 24 h"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    proofs: dict[str, Callable[[], Figures]] = {
        "storm": lambda: (storm.at_box if args.where == "box" else storm.at_centre)(
            args.minutes * 60, args.seed
        ),
        "backlog": lambda: backlog.run(args.messages),
        "soak": lambda: soak.run(args.minutes * 60),
        "away": lambda: away.run(args.minutes * 60),
    }
    try:
        figures = proofs[args.what]()
    except AssertionError as e:
        sys.stdout.write(f"does not hold: {e}\n")
        return 1
    lines = [f"| {args.what} | |", "|---|---|", *(f"| {k} | {v} |" for k, v in figures)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


sys.exit(main())
