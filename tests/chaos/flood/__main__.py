"""``python -m tests.chaos.flood --minutes 5 --times 20``: a Markdown table; ends with 1 where a
message of the flooding tenant is in no account, or the other tenant has lost one.

The ratio of the latencies means something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.flood.driver import Verdict, run
from tests.chaos.flood.plant import Plant


def table(v: Verdict) -> str:
    """The figures of one run."""
    rows = [
        ("flood", f"{v.flood_s:.0f} s at {v.times:g} times {v.plan} points a minute"),
        ("let through after the burst", f"{v.points_per_min:.0f} points a minute"),
        ("acquired", str(v.acquired)),
        ("delivered", str(v.delivered)),
        ("withheld, told in a notice", str(v.withheld)),
        ("in no account", str(v.unaccounted)),
        ("told twice, told and delivered", f"{v.told_twice}, {v.both}"),
        ("out of order, repeated", f"{v.disordered}, {v.repeats}"),
        ("points at the reader, at the meter", f"{v.came}, {v.counted}"),
        ("its right to publish", v.publish),
        ("the other tenant: lost, withheld or told of", str(v.other_lost)),
        ("its latency before (median, p99)", _pair(v.before_ms, v.before_count)),
        ("its latency in the flood (median, p99)", _pair(v.during_ms, v.during_count)),
        ("p99 in the flood to p99 before", f"{v.ratio:.2f}"),
    ]
    return "\n".join(["| flood | |", "|---|---|", *(f"| {k} | {t} |" for k, t in rows)])


def _pair(figures: tuple[float, float], count: int) -> str:
    return f"{figures[0]:.1f} ms, {figures[1]:.1f} ms ({count} messages)"


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.flood", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--times", type=float, default=20.0)
    parser.add_argument("--plan", type=int, default=6_000, help="points a minute")
    parser.add_argument("--calm", type=float, default=120.0, help="seconds before the flood")
    args = parser.parse_args()
    with Plant(args.plan, args.times) as plant:
        verdict = run(plant, args.calm, args.minutes * 60, args.times)
    sys.stdout.write(table(verdict) + "\n")
    return 0 if verdict.accounted else 1


if __name__ == "__main__":
    sys.exit(main())
