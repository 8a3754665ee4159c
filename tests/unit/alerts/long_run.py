"""``python -m tests.unit.alerts.long_run [STREAMS]``: engine = model on many streams, 10,000 unless
told; prints what they exercised, exits 1 at the first difference.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from tests.unit.alerts.streams import Twins, rule_sets, streams


def run(count: int, start: int) -> Counter[str]:
    """Transitions by what they were, over ``count`` streams."""
    found: Counter[str] = Counter()

    @seed(start)
    @settings(max_examples=count, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(specs=rule_sets, stream=streams)
    def differ(specs: list[dict[str, Any]], stream: list[tuple[Any, ...]]) -> None:
        found["streams"] += 1
        found["events"] += len(stream)
        twins = Twins(specs)
        twins.run(stream)
        for said in twins.said:
            found[f"{said[1]}: {said[6]} -> {said[7]}"] += 1
            found[f"reason {said[9]}"] += 1

    differ()
    return found


def main() -> None:
    """Runs in portions, so that a difference is found and shown early."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    total: Counter[str] = Counter()
    begin_s = time.monotonic()
    while total["streams"] < wanted:
        total += run(min(1_000, wanted - total["streams"]), random.randrange(2**32))
        print(f"{total['streams']} streams, {time.monotonic() - begin_s:.0f} s", flush=True)
    for what, times in sorted(total.items()):
        print(f"{times:9d} {what}")


if __name__ == "__main__":
    main()
