"""100,000 values a second against 1,000 rules at a box: real store_forward and alerts, fed by 20
readers without PLCs in this process. What the alerts' process takes of one core, and how long after
its reading the last value, which is an alarm, was in the receiver's hands.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import yaml

from services.runtime import loader, render
from services.runtime.clock import now_ms
from tests.bench.alerts import FIELDS, MACHINES, PLCS, rules
from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.watch import Cpu, pss_mb
from tests.kit.common import until
from tests.kit.http_sink import Answer, HttpSink, Post
from tests.kit.procs import Service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source

MESSAGES_PER_S = 4_000
"""Of FIELDS values each: 100,000 values a second."""
TURN_S = 0.025
SECONDS = 15.0
ALARM = 1e6


def site(run: Path, url: str) -> dict[str, Any]:
    """The box's configuration: 2,500 series, 1,000 rules, and one for the end."""
    fields = [{"name": f"f{n:02d}", "address": f"DB1.DBD{4 * n}:REAL"} for n in range(FIELDS)]
    machines = {"count": MACHINES, "stride": 4 * FIELDS}
    group = {"name": "g1", "scan": "500ms", "fields": fields, "machines": machines}
    plcs = [{"id": f"p{n:02d}", "host": "127.0.0.1", "groups": [group]} for n in range(PLCS)]
    end = {
        "name": "fim", "type": "threshold", "where": {"plc": "p00", "field": "f00"},
        "above": ALARM - 1, "severity": "critica",
    }  # fmt: skip
    return {
        "site": "bench", "locatario": "acme", "plcs": plcs, "outputs": [],
        "paths": {"state": str(run), "runtime": str(run)}, "store": {"min_free": "0MiB"},
        "alerts": {
            "receivers": [{"name": "fone", "type": "webhook", "url": url}],
            "rules": [end, *rules(1_000)],
        },
    }  # fmt: skip


class Plant:
    """The readers."""

    def __init__(self, run: Path) -> None:
        self.sources = [Source(run, f"p{n:02d}") for n in range(PLCS)]
        self.sent = 0

    def send(self, value: float) -> int:
        """The next machine of the next PLC; its ``ts``."""
        turn, n = divmod(self.sent, PLCS)
        self.sent += 1
        low = float(turn // MACHINES % 49)
        values = {f"f{i:02d}": low + i for i in range(FIELDS)}
        values["f00"] = value or low
        ts = now_ms()
        message = {
            "v": 1, "site": "bench", "locatario_id": "acme", "plc_id": f"p{n:02d}", "ts": ts,
            "group": "g1", "measurement": "s7_db1", "machine": f"m{turn % MACHINES + 1:02d}",
            "quality": "good", "latency_ms": 2.41, "values": values,
        }  # fmt: skip
        source = self.sources[n]
        source.publish(lambda e, s: orjson.dumps({**message, "epoch": e, "seq": s}), ts)
        return ts

    def load(self, seconds: float) -> float:
        """MESSAGES_PER_S for so long; how many went out a second."""
        begin_s, before = time.monotonic(), self.sent
        while (now_s := time.monotonic()) < begin_s + seconds:
            due = before + int((now_s - begin_s) * MESSAGES_PER_S)
            while self.sent < due:
                self.send(0.0)
            for source in self.sources:
                source.turn()
            time.sleep(max(0.0, now_s + TURN_S - time.monotonic()))
        return (self.sent - before) / (time.monotonic() - begin_s)


def run(seconds: float) -> Figures:
    """Of so many seconds, after two to find which rules watch what."""
    arrived_ms: list[tuple[int, float]] = []

    def taken(post: Post) -> Answer:
        arrived_ms.append((json.loads(post.body)["ts"], time.time() * 1e3))
        return 204, {}, b""

    with ExitStack() as stack:
        sink = stack.enter_context(HttpSink())
        sink.answer = taken
        folder = stack.enter_context(run_folder())
        (folder / "conf").mkdir()
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(site(folder, sink.url)))
        rendered = render.render(loader.load(file, {}))
        plant = Plant(folder)
        for source in plant.sources:
            stack.callback(source.close)
        services = [Service(rendered[name]) for name in ("store_forward", "alerts")]
        for service in services:
            stack.callback(service.end)
        for service in services:
            service.wait_ready()
        plant.load(2.0)
        store, alerts = (Cpu([s.pid]) for s in services)
        rate = plant.load(seconds)
        figures = {
            "values/s": rate * FIELDS,
            "% of a core, alerts": alerts.percent(),
            "% of a core, store_forward": store.percent(),
            "MB PSS, alerts": pss_mb([services[1].pid]),
        }
        while plant.sent % PLCS:
            plant.send(0.0)
        ts = plant.send(ALARM)
        for source in plant.sources:
            source.drain()
        until(lambda: arrived_ms, 120, "the alarm at the end")
        assert arrived_ms[0][0] == ts, "another alarm than that of the end"
        return {**figures, "ms to the alarm at the end": arrived_ms[0][1] - ts}


def bench(options: Options) -> list[Result]:
    """One load."""
    done: list[Round] = [(run(options.seconds or SECONDS), {}) for _ in range(options.rounds or 3)]
    return rows("alerts-live", "100,000 values/s offered, 1,000 rules", done)
