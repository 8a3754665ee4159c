"""After an outage: does the backlog drain while live data stays current?

A whole site in lane mode (two PLCs, 100 scans/s, a message each), the output stopped for
``--seconds`` (60), then started again: once as fast as it goes, once with ``max_rate`` at ten times
the ingest. The baseline is the ingest; live latency meanwhile is beside the same before the outage.
"""

from __future__ import annotations

import time

from tests.bench.result import Figures, Options, Result, percentiles, rows
from tests.kit.box import Box
from tests.kit.common import until

REPLAYED = b'"replay":true'
INGEST = 200.0
RATES = (None, 2_000)
BEFORE_S = 5.0


class Listener:
    """What has come to the subscriber since the last look."""

    def __init__(self, box: Box) -> None:
        self._received = box.subscriber.received
        self._seen = len(self._received)
        self.lags_ms: list[float] = []
        """PLC to subscriber, of what is live."""

    def look(self) -> int:
        """How many replayed messages."""
        now_ms = time.time() * 1e3
        news = [p for t, p, _ in self._received[self._seen :] if t.count("/") == 2]
        self._seen = len(self._received)
        live = [p for p in news if REPLAYED not in p and p.startswith(b'{"v"') and b'"ts":' in p]
        self.lags_ms += [now_ms - int(p.split(b'"ts":')[1].split(b",")[0]) for p in live]
        return sum(REPLAYED in p for p in news)


def outage(seconds: float, max_rate: int | None) -> tuple[float, Figures, Figures]:
    """(drained messages/s, live latency meanwhile, before)."""
    replay = {"mode": "lanes"} | ({"max_rate": max_rate} if max_rate else {})
    with Box(2, "10ms", store={"replay": replay}) as box:
        box.wait_for_messages("prensa-01", 20)
        before = Listener(box)
        end_s = time.monotonic() + BEFORE_S
        while time.monotonic() < end_s:
            time.sleep(0.002)
            before.look()
        box.site.rpc.stopProcess("publisher-central")
        count = len(box.subscriber.received)
        time.sleep(seconds)
        after = Listener(box)
        box.site.rpc.startProcess("publisher-central", False)
        until(lambda: len(box.subscriber.received) > count + 5, 30, "messages again")
        begin_s = last_s = time.monotonic()
        backlog = 0
        # Drained when nothing old has come for a second.
        while time.monotonic() - last_s < 1:
            time.sleep(0.002)
            if old := after.look():
                backlog += old
                last_s = time.monotonic()
    return backlog / (last_s - begin_s), percentiles(after.lags_ms), percentiles(before.lags_ms)


def bench(options: Options) -> list[Result]:
    """One outage a round, for each rate."""
    seconds = options.seconds or 60
    results = []
    for max_rate in RATES:
        done = [outage(seconds, max_rate) for _ in range(options.rounds or 1)]
        limit = f"max_rate {max_rate}" if max_rate else "no max_rate"
        name = f"after {seconds:g} s without an output, {INGEST:g} messages/s, {limit}"
        drained = [({"messages/s": rate}, {"ingest": {"messages/s": INGEST}}) for rate, *_ in done]
        live = [(meanwhile, {"before the outage": before}) for _, meanwhile, before in done]
        results += rows("drain", f"{name}: backlog", drained) + rows("drain", f"{name}: live", live)
    return results
