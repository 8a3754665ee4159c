"""From a PLC's change to the webhook in the receiver's hands, on a whole box: simulated PLCs whose
BOOLs turn by themselves, reader, store, alerts, a real HTTP receiver on this machine.

Measured from the message's ``ts``, the middle of the read that saw the change, so that the scan
interval is no part of it. Goal, on an idle machine: p99 below 100 ms. The case with the broker away
shows that the way to the receiver does not lead over it.
"""

from __future__ import annotations

import json
import time

from tests.bench.result import Figures, Options, Result, Round, percentiles, rows
from tests.bench.watch import Cpu, site_pids
from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.http_sink import Answer, HttpSink, Post

PLCS, SECONDS = 5, 30.0
SETTLE_S = 5.0
"""Whatever is on at the start is told at once, by processes that have just been started."""
BOOLS = ("pecas_ruim", "pecas_boas", "maquina_ligada")


def bench(options: Options) -> list[Result]:
    """With the broker and without."""
    seconds = options.seconds or SECONDS
    results: list[Result] = []
    for name, away in (("broker there", False), ("broker away", True)):
        done: list[Round] = [(run(seconds, away=away), {}) for _ in range(options.rounds or 3)]
        results += rows("alerts-latency", f"{PLCS} PLCs at 100 ms, {name}", done)
    return results


def run(seconds: float, *, away: bool) -> Figures:
    """Of so many seconds."""
    lags_ms: list[float] = []

    def taken(post: Post) -> Answer:
        lags_ms.append(time.time() * 1e3 - json.loads(post.body)["ts"])
        return 204, {}, b""

    with HttpSink() as sink:
        sink.answer = taken
        alerts = {
            "receivers": [{"name": "fone", "type": "webhook", "url": sink.url}],
            "routes": {"todos": {"receivers": ["fone"]}},
            "rules": [
                {"name": name.replace("_", "-"), "type": "threshold", "above": 0.5,
                 "where": {"plc": "*", "field": name}, "route": "todos"}
                for name in BOOLS
            ],
        }  # fmt: skip
        with Box(PLCS, alerts=alerts) as box:
            if away:
                box.stop_broker()
            until(lambda: len(lags_ms) > PLCS, 60, box.site.logs)
            time.sleep(SETTLE_S)
            lags_ms.clear()
            cpu = Cpu(site_pids(box.site))
            time.sleep(seconds)
            taken_ms = list(lags_ms)
            figures = {"notices/s": len(taken_ms) / seconds, **percentiles(taken_ms)}
            figures["% of a core, all services"] = cpu.percent()
            if away:
                box.start_broker()
    return figures
