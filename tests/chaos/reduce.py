"""``python -m tests.chaos.reduce --kills 200``: an output with ``reduce:`` is killed at every place
and time, its store beside it, its destination away at times; afterwards every raw message must be
in exactly one reduced message, and each repeat equal to the byte. The short form is a test
(tests/process/publisher/test_reduce.py).
"""

from __future__ import annotations

import argparse
import time

from tests.kit.reduce_rig import chaos

ROUND = 12
"""Kills of one plant: every raw message of it is held in memory."""


def main() -> None:
    """Says what came of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    begun_s = time.monotonic()
    for first in range(0, told.kills, ROUND):
        kills = min(ROUND, told.kills - first)
        print(chaos(kills, told.seed + first), f"after {time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    main()
