"""The alert engine on one core: values a second against 1,000 rules, loading 10,000 rules, and how
large its state is. No baseline: nobody else's engine reads the same stream.
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgpack
import orjson

from services.alerts.core.engine import Engine
from services.alerts.core.rule import Rule
from services.runtime.alert_model import Alerts, specs
from tests.bench.result import Figures, Options, Result, compare

BASE_MS = 1_764_000_000_000
PLCS, MACHINES, FIELDS = 20, 5, 25
"""2,500 series, a message for each machine."""
STEP_MS = 500


def rules(count: int) -> list[dict[str, Any]]:
    """A plant's mixture: most of them thresholds on one field of one PLC, some on all of them."""
    out: list[dict[str, Any]] = []
    for n in range(count):
        where = {"plc": f"p{n % PLCS:02d}", "field": f"f{n // PLCS % FIELDS:02d}"}
        rule: dict[str, Any] = {"name": f"r{n:05d}", "where": where, "cooldown": "5m"}
        kind = n % 10
        if kind == 7:
            rule |= {"type": "rate_change", "above": 1e6, "window": "5m"}
        elif kind == 8:
            rule |= {"type": "percentage", "of": {"mean": "1h"}, "above": 500}
        elif kind == 9:
            rule |= {"type": "state_for", "equal": 1e9, "for": "10m"}
        else:
            rule |= {"type": "threshold", "above": 95, "returns_at": 90, "for": "30s"}
        out.append(rule)
    return out


def engine(count: int) -> Engine:
    return Engine(map(Rule.from_spec, specs(Alerts.model_validate({"rules": rules(count)}))))


def bodies(scans: int, *, high: bool = False) -> list[tuple[str, bytes]]:
    """Messages as they come, in JSON; every value moves at every scan and is beyond a threshold
    now and then, or with ``high`` always.
    """
    out = []
    seqs = dict.fromkeys(range(PLCS), 0)
    for scan in range(scans):
        for plc in range(PLCS):
            for machine in range(MACHINES):
                seqs[plc] += 1
                low = 96.0 if high else 50.0
                values = {
                    f"f{n:02d}": low + (scan * 7 + n * 3 + machine) % 49 for n in range(FIELDS)
                }
                message = {
                    "v": 1, "site": "s", "locatario_id": "acme", "plc_id": f"p{plc:02d}",
                    "group": "db500", "measurement": "s7_db1", "machine": f"m{machine:02d}",
                    "ts": BASE_MS + scan * STEP_MS, "epoch": BASE_MS, "seq": seqs[plc],
                    "quality": "good", "latency_ms": 2.41, "values": values,
                }  # fmt: skip
                out.append((f"plc/acme/p{plc:02d}", json.dumps(message).encode()))
    return out


def bench(options: Options) -> list[Result]:
    """Throughput, load and size."""
    rounds = options.rounds or (3 if options.quick else 5)
    each = PLCS * MACHINES

    def values_per_s(messages: list[tuple[str, bytes]]) -> Figures:
        subject = engine(1_000)
        now_ms = BASE_MS
        for topic, body in messages[:each]:  # finds which rules watch what
            subject.message(topic, orjson.loads(body), now_ms)
        begin_s = time.process_time()
        for n, (topic, body) in enumerate(messages[each:]):
            if n % each == 0:
                now_ms += STEP_MS
                subject.tick(now_ms)
            subject.message(topic, orjson.loads(body), now_ms)
        took_s = time.process_time() - begin_s
        return {"values/s of CPU": (len(messages) - each) * FIELDS / took_s}

    usual, high = bodies(60), bodies(60, high=True)

    def load() -> Figures:
        plain = specs(Alerts.model_validate({"rules": rules(10_000)}))
        begin_s = time.process_time()
        Engine(map(Rule.from_spec, plain))
        return {"ms CPU": (time.process_time() - begin_s) * 1e3}

    def check() -> Figures:
        plain = rules(10_000)
        begin_s = time.process_time()
        specs(Alerts.model_validate({"rules": plain}))
        return {"ms CPU": (time.process_time() - begin_s) * 1e3}

    def size() -> Figures:
        subject = engine(1_000)
        for topic, body in usual:
            subject.message(topic, orjson.loads(body), BASE_MS)
        alarms = sum(1 for _ in subject.watches())
        begin_s = time.process_time()
        packed = msgpack.packb(subject.dump())
        took_ms = (time.process_time() - begin_s) * 1e3
        return {"bytes an alarm": len(packed) / alarms, "KiB": len(packed) / 1024, "ms": took_ms}

    return [
        *compare("alerts", "JSON messages against 1,000 rules",
                 lambda: values_per_s(usual), {}, rounds),
        *compare("alerts", "the same, every threshold exceeded",
                 lambda: values_per_s(high), {}, rounds),
        *compare("alerts", "engine of 10,000 rules", load, {}, rounds),
        *compare("alerts", "10,000 rules checked by themselves", check, {}, rounds),
        *compare("alerts", "state after 60 scans, as msgpack", size, {}, rounds),
    ]  # fmt: skip
