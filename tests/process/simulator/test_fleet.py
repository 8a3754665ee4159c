"""``simulate --fleet`` against real brokers: what a real box sends is what each of many sends."""

from __future__ import annotations

import signal
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from services.cli.demo_broker import VIEWER_USER
from tests.kit.arrivals import judge
from tests.kit.box import Box
from tests.kit.broker import Broker
from tests.kit.common import ROOT, free_port, until
from tests.kit.counting_client import CountingClient
from tests.kit.many_boxes import ManyBoxes, box_config
from tests.kit.procs import service
from tests.kit.publisher_rig import run_folder
from tests.kit.site import PLC_EDGE

TOPICS = ["plc/+/+", "plc/+/+/gap"]


# -- the same messages as a real box's ------------------------------------------------------------


@contextmanager
def watching(box: Box) -> Iterator[list[paho.MQTTMessage]]:
    """Everything at the box's broker, with its properties."""
    found: list[paho.MQTTMessage] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(VIEWER_USER, box.broker.passwords[VIEWER_USER])
    client.tls_set(str(box.broker.ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
    client.on_message = lambda _c, _u, m: found.append(m)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", box.broker.port)
    client.subscribe([("plc/#", 1), ("edge/#", 1)])
    client.loop_start()
    try:
        assert subscribed.wait(10)
        yield found
    finally:
        client.disconnect()
        client.loop_stop()


def shape(value: Any) -> Any:
    """Keys in their order, and types."""
    if isinstance(value, dict):
        return [(key, shape(v)) for key, v in value.items()]
    return type(value).__name__


def kinds(messages: list[paho.MQTTMessage], site: str) -> dict[str, set[str]]:
    """What a site sends: its topics without the names, QoS, properties, and shapes of bodies."""
    found: dict[str, set[str]] = {}
    for m in list(messages):
        body = orjson.loads(m.payload)
        if body["site"] != site:
            continue
        root, _, _, *kind = m.topic.split("/")
        names = [name for name, _ in getattr(m.properties, "UserProperty", [])]
        is_text = getattr(m.properties, "PayloadFormatIndicator", None)
        said = (m.qos, names, is_text, body.get("status"), shape(body))
        found.setdefault("/".join([root, *kind]), set()).add(str(said))
    return found


def test_messages_are_those_of_a_real_box() -> None:
    """Same topics, same keys in the same order, same types, same properties, same will."""
    with Box(plcs=1) as box, watching(box) as seen:
        box.wait_for_messages("prensa-01", 3)
        config = {k: v for k, v in box.site.config.items() if k not in ("paths", "metrics")}
        with ManyBoxes(config, 2) as boxes:
            wanted = {"plc", "plc/heartbeat", "edge/status"}
            sites = ("e2e", "e2e-0001", "e2e-0002")
            until(lambda: all(kinds(seen, s).keys() == wanted for s in sites), 20, "all of each")
            with watching(box) as retained:
                # What is kept comes at once, and live messages after it.
                until(lambda: "plc" in kinds(retained, "e2e-0002"), 10, "live messages")
                kept = [m for m in retained if m.retain]
                assert all(kinds(kept, s).keys() == wanted - {"plc"} for s in sites)
            real, made = kinds(seen, "e2e"), kinds(seen, "e2e-0001")
            assert made["plc"] == real["plc"]
            assert made["plc/heartbeat"] <= real["plc/heartbeat"]
            assert made["edge/status"] <= real["edge/status"]
            boxes.process.kill()
            box.site.kill("publisher-central")
            wills = "edge/acme/e2e/status", "edge/acme/e2e-0001/status"

            def will(topic: str) -> bytes:
                said = [bytes(m.payload) for m in list(seen) if m.topic == topic]
                return next((s for s in said if b"offline" in s), b"")

            until(lambda: all(map(will, wills)), 20, "both wills")
            real_will, made_will = map(will, wills)
            assert made_will == real_will.replace(b'"e2e"', b'"e2e-0001"')


def test_a_consumer_of_the_centre_takes_each_message_once(tmp_path: Path) -> None:
    with run_folder() as run, Broker(tls=True) as broker:
        assert broker.authority is not None
        tally = {
            "process": "tally", "folder": "tally", "where": "centre", "runtime": str(run),
            "state": str(run), "database": str(run / "tally.db"), "window": 1_000, "commit_s": 0.05,
            "refuse": 0,
            "mqtt": {"host": "127.0.0.1", "port": broker.port, "client_id": "tally",
                     "username": None, "password": None,
                     "tls": {"ca": str(broker.authority.ca), "cert": None, "key": None}},
        }  # fmt: skip
        with service(tally, package="tests.kit") as consumer:
            until(lambda: "New client connected" in broker.log(), 10, consumer.stderr)
            config = box_config(broker, plcs=3, scan="100ms")
            with ManyBoxes(config, 5, "--tenants", "2") as boxes:
                until(lambda: boxes.status()["acknowledged"] > 300, 20, "messages")
                boxes.drain()
                made = boxes.status()["made"]
                until(lambda: counted(run / "tally.db")[0] == made, 20, "all of them")
            seen, wrong, streams = counted(run / "tally.db")
            assert (seen, wrong, streams) == (made, 0, 15)


def counted(database: Path) -> tuple[int, int, int]:
    """(rows, wrong ones, PLCs) of a tally; fails where a row was taken twice."""
    with sqlite3.connect(database) as db:
        twice = db.execute("SELECT count(*) FROM seen WHERE times > 1").fetchone()[0]
        assert not twice
        return (
            db.execute("SELECT count(*) FROM seen").fetchone()[0],
            db.execute("SELECT count(*) FROM wrong").fetchone()[0],
            db.execute("SELECT count(DISTINCT plc) FROM seen").fetchone()[0],
        )


# -- tenants, outages, backlogs -------------------------------------------------------------------


def test_a_box_has_a_connection_for_each_tenant() -> None:
    with Broker(options="connection_messages true") as broker:
        config = box_config(broker)
        config["plcs"][1]["locatario"] = "beta"
        with broker.subscribe("#") as seen, ManyBoxes(config, 3, "--tenants", "2"):
            until(lambda: len({t for t, *_ in seen.messages if t.startswith("edge/")}) == 6, 10,
                  "two connections of three boxes")  # fmt: skip
            topics = {t for t, *_ in seen.messages if t.startswith("edge/")}
            assert topics == {
                f"edge/{tenant}-{copy}/caixa-{n:04d}/status"
                for tenant in ("acme", "beta")
                for n, copy in ((1, "01"), (2, "02"), (3, "01"))
            }
            assert "caixa-0003-central-beta-01" in broker.log()


def test_after_an_outage_live_messages_pass_beside_the_backlog(tmp_path: Path) -> None:
    with (
        Broker() as broker,
        broker.subscribe("edge/#") as edges,
        CountingClient(broker.port, "counter", TOPICS) as counter,
    ):
        config = box_config(broker, scan="100ms")
        config["store"]["replay"]["max_rate"] = 30
        config["outputs"][0]["window"] = 20
        with ManyBoxes(config, 8) as boxes:
            until(lambda: counter.report()["messages"] > 100, 10, "messages")
            began = counter.report()
            assert began["replayed"] == 0
            assert boxes.tell("away 0.5 8s") == "ok 4 boxes"

            def offline() -> set[str]:
                last = {t: p for t, p, *_ in list(edges.messages)}
                return {t for t, p in last.items() if b"offline" in p}

            until(lambda: len(offline()) == 4, 5, "the wills of half the boxes")
            assert boxes.status()["away"] == 4
            until(lambda: not offline(), 20, "all back")
            until(lambda: counter.report()["replayed"] > 100, 10, "a backlog")
            counter.report()
            time.sleep(1)
            during = counter.report()
            assert during["ages_ms"][-1][0] < 2_000, "live messages wait behind the backlog"
            assert boxes.status()["pending"] > 0, "the backlog was gone already"
            boxes.drain()
            assert boxes.end() == 0
            total = counter.report()
            verdict = judge([boxes.account], [counter.dump(tmp_path / "came")])
    assert (verdict.lost, total["disordered"], total["wrong"]) == ([], 0, [])
    assert verdict.made == verdict.acknowledged == verdict.came


def test_an_oracle_that_sees_a_loss_says_so(tmp_path: Path) -> None:
    """The broker drops what a subscriber that is too slow does not take."""
    with Broker(options="max_queued_messages 10") as broker:
        slow = CountingClient(broker.port, "counter", TOPICS, receive_maximum=10)
        with slow as counter, ManyBoxes(box_config(broker, scan="20ms"), 4) as boxes:
            until(lambda: counter.report()["messages"] > 10, 10, "messages")
            counter.process.send_signal(signal.SIGSTOP)
            came = boxes.status()["acknowledged"]
            until(lambda: boxes.status()["acknowledged"] > came + 400, 20, "messages meanwhile")
            counter.process.send_signal(signal.SIGCONT)
            boxes.drain()
            boxes.end()
            counter.report()
            verdict = judge([boxes.account], [counter.dump(tmp_path / "came")])
    assert verdict.lost


def test_what_is_older_than_the_outbox_keeps_is_told_in_gaps(tmp_path: Path) -> None:
    with Broker() as broker, CountingClient(broker.port, "counter", TOPICS) as counter:
        config = box_config(broker, scan="1s")
        config["store"]["max_age"] = "60s"
        with ManyBoxes(config, 2, "--backlog", "10m") as boxes:
            until(lambda: not boxes.status()["pending"], 20, lambda: str(boxes.status()))
            boxes.drain()
            assert boxes.status()["dropped"] > 4 * 500
            assert boxes.end() == 0
            counter.report()
            verdict = judge([boxes.account], [counter.dump(tmp_path / "came")])
    assert not verdict.lost
    assert verdict.told + verdict.came == verdict.made
    assert verdict.told > 4 * 500


def test_a_broker_that_is_away_is_said_once_and_waited_for() -> None:
    port = free_port()
    at = ["--broker", f"127.0.0.1:{port}", "--plcs", "2"]
    command = [*PLC_EDGE, "simulate", "--fleet", "3", *at]
    with run_folder() as run, (run / "err").open("w") as err:
        process = subprocess.Popen(
            [*command, "--seconds", "1"], stdout=subprocess.PIPE, stderr=err, text=True, cwd=ROOT
        )
        try:
            until(lambda: "refuses the connection" in (run / "err").read_text(), 15, "why not")
            with Broker(port=port):
                out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert out.splitlines()[0] == "READY boxes=3 plcs=6"
            assert " pending=0" in out.splitlines()[-1]
            assert (run / "err").read_text().count("a box is not connected") == 1
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--broker", "127.0.0.1"], "HOST:PORT"),
        (["--broker", "127.0.0.1:1", "--outage", "half:1s:1s"], "SHARE:AFTER:FOR"),
        (["--broker", "127.0.0.1:1", "--outage", "2:1s:1s"], "at most 1"),
        (["--broker", "127.0.0.1:1", "--backlog", "long"], "a duration"),
        (["--broker", "127.0.0.1:1", "--scan", "x"], "scan"),
    ],
)
def test_wrong_usage_is_said(options: list[str], said: str) -> None:
    done = subprocess.run(
        [*PLC_EDGE, "simulate", "--fleet", "2", *options],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_names_too_long_and_other_outputs_are_said(tmp_path: Path) -> None:
    base = {"locatario": "acme", "plcs": [
        {"id": "p1", "host": "10.0.0.1",
         "groups": [{"name": "g1", "fields": [{"name": "x", "address": "DB1.DBW0:INT"}]}]},
    ]}  # fmt: skip
    mqtt = {"name": "central", "type": "mqtt", "host": "127.0.0.1", "tls": False}
    console = {"name": "console", "type": "stdout"}
    cases = [
        ({**base, "site": "s" * 30, "outputs": [mqtt]}, "too long"),
        ({**base, "site": "ok", "outputs": [console]}, "MQTT outputs"),
    ]
    for config, said in cases:
        file = tmp_path / "box.yaml"
        file.write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [*PLC_EDGE, "simulate", "--fleet", "2", "-c", str(file)],
            capture_output=True, text=True, cwd=ROOT, check=False, timeout=30,
        )  # fmt: skip
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert said in done.stderr
