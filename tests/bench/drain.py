"""After an outage: does the backlog drain while live data stays current?

``python -m tests.bench.drain [OUTAGE_SECONDS]``: a whole site in lane mode (two PLCs, 20 scans/s, a
message each), the output stopped for so long, then started again. The ratio is backlog messages per
second over ingest; an hour of the same ingest drains in an hour over that ratio.
"""

from __future__ import annotations

import statistics
import sys
import time

from tests.kit.box import Box
from tests.kit.site import wait_for


def main(outage_s: float) -> None:
    """Prints one table."""
    box = Box(2, "50ms", store={"replay": {"mode": "lanes"}})
    with box:
        box.wait_for_messages("prensa-01", 20)
        box.site.rpc.stopProcess("publisher-central")
        before = len(box.subscriber.received)
        begin_s = time.monotonic()
        time.sleep(outage_s)
        waited_s = time.monotonic() - begin_s
        box.site.rpc.startProcess("publisher-central", False)
        wait_for(lambda: len(box.subscriber.received) > before + 5, 30, "messages again")
        begin_s = last_s = time.monotonic()
        lags_ms: list[float] = []
        seen = before
        backlog = 0
        # Drained when nothing old has come for a second.
        while time.monotonic() - last_s < 1:
            time.sleep(0.01)
            now_ms = time.time() * 1e3
            fresh = [p for t, p, _ in box.subscriber.received[seen:] if t.count("/") == 2]
            seen = len(box.subscriber.received)
            old = sum(b'"replay":true' in p for p in fresh)
            if old:
                backlog += old
                last_s = time.monotonic()
            live = (p for p in fresh if b'"replay":true' not in p)
            lags_ms += [now_ms - int(p.split(b'"ts":')[1].split(b",")[0]) for p in live]
        drained_s = last_s - begin_s
    ingest = 40.0
    cuts = statistics.quantiles(lags_ms, n=100)
    print("| what | value |\n|---|---|")
    print(f"| outage | {waited_s:.0f} s at {ingest:.0f} messages/s |")
    print(f"| backlog drained | {backlog} messages in {drained_s:.1f} s |")
    print(f"| drain over ingest | {backlog / drained_s / ingest:.0f}× |")
    print(f"| live meanwhile, PLC to subscriber | p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms |")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
