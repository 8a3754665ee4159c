"""The same consumer at the centre, fed by a real Mosquitto: killed anywhere, the broker started
anew, messages sent twice: each is counted once. (Their order is the broker's: Mosquitto 2.0.11 now
and then sends a message of a resumed session behind later ones.)
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder

EPOCH = 1_764_000_000_000
POINTS = ("taken", "before_commit", "after_commit", "before_receipt")


class World:
    """A broker, what boxes send to it, and what the tally's database says."""

    def __init__(self, run: Path, broker: Broker) -> None:
        self.run, self.broker = run, broker
        self.seqs = {"p1": 0, "p2": 0}
        self.count = self.sum = 0
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="box", protocol=paho.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        self.client = client

    def config(self, **options: Any) -> dict[str, Any]:
        mqtt = {
            "host": "127.0.0.1", "port": self.broker.port, "client_id": "tally",
            "username": None, "password": None, "tls": None,
        }  # fmt: skip
        return {
            "process": "tally", "folder": "tally", "runtime": str(self.run),
            "state": str(self.run), "database": str(self.run / "tally.db"), "window": 20,
            "commit_s": 0.0, "refuse": 0, "mqtt": mqtt, **options,
        }  # fmt: skip

    def send(self, plc: str, seq: int, **more: Any) -> None:
        n = 2 * seq + (plc == "p2")
        message = {"ts": EPOCH, "epoch": EPOCH, "seq": seq, "n": n, **more}
        self.client.publish(f"plc/acme/{plc}", orjson.dumps(message), qos=1).wait_for_publish(15)

    def feed(self, count: int) -> None:
        """So many new messages of each PLC, and some that came before."""
        for _ in range(count):
            for plc in self.seqs:
                seq = self.seqs[plc] = self.seqs[plc] + 1
                self.count += 1
                self.sum += 2 * seq + (plc == "p2")
                self.send(plc, seq)
                if seq % 5 == 0:
                    self.send(plc, seq - 3)

    def feed_until_dead(self, victim: Service) -> None:
        deadline_s = time.monotonic() + 15
        while victim.process.poll() is None:
            self.feed(1)
            assert time.monotonic() < deadline_s, f"it still runs\n{victim.stderr()}"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.run / "tally.db") as db:
            return db.execute(sql).fetchall()

    def check(self) -> None:
        """Waits for the last one; then all are there, each once."""
        rows = "SELECT rows FROM total"
        until(lambda: self.ask(rows)[0][0] >= self.count, 20, lambda: f"{self.ask(rows)} counted")
        assert self.ask("SELECT rows, sum FROM total") == [(self.count, self.sum)]
        assert self.ask("SELECT * FROM seen WHERE times != 1") == []


@contextmanager
def world() -> Iterator[World]:
    with run_folder() as run, Broker(options="persistence true") as broker:
        it = World(run, broker)
        # The session must exist before anything is sent.
        with service(it.config(), package="tests.kit") as first:
            until(lambda: first.said('"output_ok"'), 10, first.stderr)
        try:
            yield it
        finally:
            it.client.disconnect()
            it.client.loop_stop()


@pytest.mark.parametrize("window", [2, 7, 200])
def test_killed_anywhere_it_misses_nothing_and_counts_nothing_twice(window: int) -> None:
    chance = random.Random(window)
    with world() as w:
        for n in range(8):
            point = f"consumer.{POINTS[n % 4]}:{chance.randint(1, 8)}"
            with service(
                w.config(window=window),
                {"PLC_EDGE_FAILPOINT": point},
                package="tests.kit",
            ) as doomed:
                w.feed_until_dead(doomed)
        with service(w.config(window=window), package="tests.kit"):
            w.feed(5)
            w.check()


def test_a_broker_that_is_started_anew() -> None:
    with world() as w, service(w.config(), package="tests.kit") as tally:
        for _ in range(3):
            w.feed(10)
            w.broker.stop()
            until(lambda: tally.said('"output_lost"'), 10, tally.stderr)
            w.broker.start()
            until(w.client.is_connected, 10, "the box is connected again")
        w.feed(10)
        w.check()
        assert tally.terminate() == 0


def test_backlog_beside_new_ones_a_commit_that_waits_and_what_is_no_message() -> None:
    with world() as w, service(w.config(refuse=2), package="tests.kit") as tally:
        w.seqs["p1"] = 10  # 1 to 10 come later, as a box replays them
        w.feed(10)
        w.client.publish("plc/acme/p1", b"no JSON", qos=1).wait_for_publish(10)
        w.client.publish("plc/acme/p1/heartbeat", b"", qos=1, retain=True).wait_for_publish(10)
        for seq in range(1, 11):
            w.count, w.sum = w.count + 1, w.sum + 2 * seq
            w.send("p1", seq, replay=True)
        w.check()
        tally.wait_said("output_disk_full")
        tally.wait_said("no message of ours")


def test_a_database_that_is_away_for_longer_is_waited_for() -> None:
    """At the start, and after a commit that failed."""
    with world() as w, service(w.config(refuse=1, away=1), package="tests.kit") as tally:
        until(lambda: tally.said('"output_ok"'), 15, tally.stderr)
        w.feed(10)
        w.check()
        tally.wait_said("output_disk_full")
        tally.wait_said("output_away")
        assert tally.terminate() == 0
