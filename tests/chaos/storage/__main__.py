"""``python -m tests.chaos.storage --cuts 2000 --flips 500``: a Markdown table."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from tests.chaos.storage import flips, full, power


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=2_000)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--full", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("| fault | cases | result | figures | seconds |\n|---|---|---|---|---|")
    began_s = time.monotonic()
    tell = power.run(args.cuts, args.seed) if args.cuts else Counter()
    _line("power cut, outbox and ring", tell["cuts"], "0 acknowledged rows lost", tell, began_s)
    began_s = time.monotonic()
    tell, slowest_s = flips.run(args.flips, args.seed)
    result = f"delivered ∪ gaps = acquired, slowest start {slowest_s:.2f} s of CPU"
    _line("bit flip or truncation", tell["cases"], result, tell, began_s)
    began_s = time.monotonic()
    tell = full.run(args.full, args.seed)
    _line("disk full", tell["cases"], "delivered ∪ gaps = acquired", tell, began_s)


def _line(what: str, cases: int, result: str, tell: Counter[str], began_s: float) -> None:
    figures = ", ".join(f"{k}: {v:,}" for k, v in sorted(tell.items()))
    print(f"| {what} | {cases:,} | {result} | {figures} | {time.monotonic() - began_s:.0f} |")


if __name__ == "__main__":
    main()
