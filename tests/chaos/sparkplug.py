"""``python -m tests.chaos.sparkplug``: faults at random between a Sparkplug output and its primary
host; afterwards all that hosts heard is held against all that was acquired.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bus.frames import GAP_ROW
from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.procs import Service
from tests.kit.proxy import Proxy
from tests.kit.publisher_rig import run_folder
from tests.kit.sparkplug import HOST, HostApplication, plc, sparkplug_config
from tests.kit.sparkplug_judge import Judge

LINE_FAULTS = ("refuse", "reset", "blackhole", "half_open", "delay", "cut_ack")


class Plant:
    """An output, its broker behind a line, and whoever is the primary host now."""

    def __init__(self, run: Path, broker: Broker, peer: DispatchPeer, proxy: Proxy,
                 options: dict[str, Any], rng: random.Random) -> None:  # fmt: skip
        self.broker, self.peer, self.proxy, self.rng = broker, peer, proxy, rng
        plcs = [plc(), plc(id="forno-02")]
        self.config = sparkplug_config(run, proxy.port, plcs, primary_host=HOST, **options)
        self.publisher = Service(self.config)
        self.hosts = [HostApplication(broker.port)]

    def feed(self, seconds: float) -> None:
        """Rows of two PLCs, and now and then a gap message."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.peer.add(self.rng.randint(1, 8))
            self.peer.add(self.rng.randint(1, 8), plc="forno-02")
            if self.rng.random() < 0.05:
                self.peer.add(1, kind=GAP_ROW)
            time.sleep(0.02)

    def kill_publisher(self) -> None:
        self.publisher.kill()
        self.publisher = Service(self.config)

    def kill_broker(self) -> None:
        self.broker.stop(kill=True)
        self.feed(self.rng.uniform(0, 0.5))
        self.broker.start()

    def kill_host(self) -> None:
        """Reads nothing for a while, then dies; another takes its place, at once or later."""
        self.hosts[-1].freeze()
        self.feed(self.rng.uniform(0, 0.6))
        self.hosts[-1].leave()
        self.feed(self.rng.uniform(0, 1.0))
        self.hosts.append(HostApplication(self.broker.port))

    def break_line(self) -> None:
        self.proxy.fault = self.rng.choice(LINE_FAULTS)
        self.feed(self.rng.uniform(0.2, 2.0))
        self.proxy.fault = None


def main() -> None:
    """Prints what was found; exit 1 where a row is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    options: dict[str, Any] = {"window": 1_000, "host_grace": 1.0, "qos": given.qos}
    with (
        run_folder() as run,
        Broker() as broker,
        Proxy(broker.port) as proxy,
        DispatchPeer(run, "central") as peer,
    ):
        plant = Plant(run, broker, peer, proxy, options, rng)
        kinds: list[Callable[[], None]] = [
            plant.kill_publisher, plant.kill_broker, plant.kill_host, plant.break_line
        ]  # fmt: skip
        done: Counter[str] = Counter()
        try:
            for _ in range(given.faults):
                plant.feed(rng.uniform(0.1, 0.8))
                fault = rng.choice(kinds)
                fault()
                done[fault.__name__] += 1
            peer.add(1)
            until(lambda: peer.done, 120, plant.publisher.stderr)
            assert plant.publisher.terminate() == 0
            plant.hosts[-1].wait("NDEATH")
        finally:
            plant.publisher.end()
        judge, births = Judge(qos=given.qos), 0
        for host in plant.hosts:
            judge.hear(host.heard)
            births += host.count("NBIRTH")
    missing = judge.missing(peer.rows, peer.refused)
    delivered = set(judge.delivered)
    first = list(dict.fromkeys(judge.delivered))
    order = all(
        (mine := [key for key in first if key[0] == plc_id]) == sorted(mine)
        for plc_id in {key[0] for key in first}
    )
    history = sum(any(r.historical for r in rs) for rs in judge.readings.values())
    acquired = sum(not r[1] for r in peer.rows)
    for line in (
        f"seed {given.seed}, qos {given.qos}: {given.faults} faults {dict(done)}",
        f"rows {acquired}, delivered {len(delivered)}; gap messages {len(peer.rows) - acquired},"
        f" heard {len({str(g) for g in judge.gaps})}; refused {len(peer.refused)}",
        f"missing {len(missing)}, first deliveries in order: {order}",
        f"repeats {len(judge.delivered) - len(delivered)}, as history {history},"
        f" hosts {len(plant.hosts)}, births {births}",
    ):
        print(line)
    raise SystemExit(bool(missing) or not order)


if __name__ == "__main__":
    main()
