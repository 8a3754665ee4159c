"""The process is killed about every second, anywhere, while alarms begin and end all the time."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from tests.kit.alerts_rig import world
from tests.kit.central_alerts import CentralAlerts, Storm, high
from tests.kit.http_sink import HttpSink
from tests.kit.procs import Service
from tests.process.alerts.test_process import check, webhook

Figures = list[tuple[str, str]]
PACE_S = 0.004


def _kill_every_second(
    seconds: float, chance: random.Random, start: Callable[[], Service], feed: Callable[[], None]
) -> tuple[int, int]:
    """(kills, values fed)."""
    kills = fed = 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        doomed = start()
        kill_s = time.monotonic() + chance.uniform(0.3, 1.7)
        while time.monotonic() < kill_s:
            feed()
            fed += 1
            time.sleep(PACE_S)  # the pace of a plant in a storm, not a wait
        assert doomed.process.poll() is None, f"ended by itself: {doomed.stderr()}"
        doomed.kill()
        kills += 1
        sys.stderr.write(f"\r{kills} kills, {fed} values ")
    return kills, fed


def _figures(kills: int, fed: int, sent: int, ids: int, transitions: int) -> Figures:
    return [
        ("`kill -9`", str(kills)),
        ("values fed meanwhile", f"{fed:,}"),
        ("transitions, all as an undisturbed run has them", f"{transitions:,}"),
        ("notifications, each under one id", f"{ids:,}"),
        ("sent again under their id", str(sent - ids)),
        ("missed, or under two ids", "0"),
    ]


def at_box(seconds: float, seed: int) -> Figures:
    """Beside a real store_forward and a real receiver."""
    chance = random.Random(seed)
    with HttpSink() as sink, world(webhook("fone", sink)) as w:

        def start() -> Service:
            running = Service(w.rendered["alerts"])
            running.wait_ready(30)
            return running

        kills, fed = _kill_every_second(
            seconds,
            chance,
            start,
            lambda: w.feed(chance.choice(("p1", "p2")), chance.choice((10, 90)), wait=False),
        )
        with w.alerts() as alerts:
            alerts.wait_ready()
            check(w, sink)
        ids = {p.headers["idempotency-key"] for p in sink.posts}
        return _figures(kills, fed, len(sink.posts), len(ids), len(w.history()))


def at_centre(seconds: float, seed: int) -> Figures:
    """Two tenants of the same names, a real broker with accounts and TLS."""
    chance = random.Random(seed)
    with CentralAlerts() as w, HttpSink() as ours, HttpSink() as theirs:
        storm = Storm([high(w, "acme", ours), high(w, "beta", theirs)], seed)
        w.alerts_stop()
        kills, fed = _kill_every_second(seconds, chance, w.start, storm.step)
        w.start()
        storm.check(w, "acme", ours)
        storm.check(w, "beta", theirs)
        posts = [*ours.posts, *theirs.posts]
        ids = {p.headers["idempotency-key"] for p in posts}
        return _figures(kills, fed, len(posts), len(ids), sum(map(len, storm.expected.values())))
