"""The centre's process for long: alarms of three tenants, receivers that fail, rules that change.
Its memory, descriptors and threads must not grow.
"""

from __future__ import annotations

import random
import statistics
import time

import psutil

from tests.kit.central_alerts import HIGH, CentralAlerts, Storm, high
from tests.kit.http_sink import HttpSink

Figures = list[tuple[str, str]]
SAMPLE_S = 5.0
# A rule of a tenant is changed that often: its engine begins anew.
CHANGE_S = 20.0


def run(seconds: float) -> Figures:
    """For so long."""
    chance = random.Random(3)
    with CentralAlerts() as w, HttpSink() as sink:
        sink.answer = lambda _: (503 if chance.random() < 0.1 else 204, {}, b"")
        tenants = ("acme", "beta", "gama")
        storm = Storm([high(w, t, sink) for t in tenants])
        assert w.alerts is not None
        process = psutil.Process(w.alerts.pid)
        samples: list[tuple[float, int, int]] = []
        begin_s = now_s = time.monotonic()
        next_sample_s, next_change_s = now_s + SAMPLE_S, now_s + CHANGE_S
        fed = changes = 0
        while (now_s := time.monotonic()) < begin_s + seconds:
            storm.step()
            fed += 1
            time.sleep(0.005)  # a pace, not a wait
            if now_s >= next_sample_s:
                next_sample_s += SAMPLE_S
                memory_mb = process.memory_info().rss / 2**20
                samples.append((memory_mb, process.num_fds(), process.num_threads()))
            if now_s >= next_change_s:
                next_change_s += CHANGE_S
                changes += 1
                rule = {**HIGH, "above": 80 + changes % 2}
                w.put(chance.choice(tenants), "rules", "outra", rule)
        assert w.alerts.process.poll() is None, w.alerts.stderr()
        quarter = max(1, len(samples) // 4)
        first, last = samples[quarter : 2 * quarter], samples[-quarter:]
        memory = [statistics.mean(s[0] for s in part) for part in (first, last)]
        return [
            ("duration, values fed", f"{seconds / 60:.0f} min, {fed:,}"),
            ("changes of rules", str(changes)),
            ("notifications taken, refused with 503", _answers(sink)),
            ("memory, second and last quarter", f"{memory[0]:.1f} and {memory[1]:.1f} MB"),
            ("descriptors, the same", f"{first[0][1]} and {last[-1][1]}"),
            ("threads, the same", f"{first[0][2]} and {last[-1][2]}"),
        ]


def _answers(sink: HttpSink) -> str:
    return f"{len(sink.taken):,}, {len(sink.posts) - len(sink.taken):,}"
