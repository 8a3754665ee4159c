"""What `plc-edge infra render --broker nats` writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.infra import nats
from services.infra.model import Account
from tests.kit import fleet

NODES = ("nats-1.example.com", "nats-2.example.com", "nats-3.example.com")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("plc/acme/prensa-01", ("plc.acme.prensa-01",)),
        ("plc/+/+", ("plc.*.*",)),
        ("plc/+/+/gap", ("plc.*.*.gap",)),
        # To MQTT `plc/acme` is in it, to NATS it is not.
        ("plc/acme/#", ("plc.acme.>", "plc.acme")),
    ],
)
def test_topics_as_subjects(topic: str, expected: tuple[str, ...]) -> None:
    assert nats.subjects([topic]) == expected


def test_who_only_writes_may_not_subscribe_and_who_only_reads_may_not_publish() -> None:
    writer, reader = nats.grants(
        [Account("w", "", write=("a/b",)), Account("r", "", read=("a/#",))]
    )
    assert (writer.publish, writer.subscribe) == (("a.b",), ())
    assert (reader.publish, reader.subscribe) == ((), ("a.>", "a", nats.DELIVERY))
    assert nats.grants([Account("saude", "", read=("$SYS/broker/uptime",))]) == []


def test_each_node_has_a_file_and_knows_the_others(tmp_path: Path) -> None:
    files = fleet.rendered(tmp_path, nodes=NODES)
    for node in NODES:
        text = files[f"nats/{node}.conf"]
        assert f'server_name: "{node}"' in text
        for other in NODES:
            assert (f"nats-route://{other}:" in text) == (other != node)
    assert files["telegraf/telegraf.conf"].count(f"ssl://{NODES[2]}:8883") == 3
    assert "$share" not in files["telegraf/telegraf.conf"]
    assert not [name for name in files if name.startswith("mosquitto/")]


def test_the_rest_is_what_it_is_with_mosquitto(tmp_path: Path) -> None:
    one = fleet.rendered(tmp_path / "one")
    other = fleet.rendered(tmp_path / "other", nodes=NODES)
    same = {name for name in one if one[name] == other.get(name)}
    assert {name.split("/")[0] for name in set(one) - same} == {
        "mosquitto", "telegraf", "agent-secrets.txt", "docker-compose.yml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--broker", "nats"], "three or five times"),
        (["--broker", "nats", *("--node", "a") * 3], "three or five times"),
        (["--broker", "nats", "--node", "a", "--node", "b"], "a, b given"),
        (["--broker", "nats", "--node", "a", "--node", "b", "--node", "c d"], "no host name"),
        (["--node", "a"], "is for --broker nats"),
        (
            ["--broker", "nats", "--accounts", "control-plane", *("--node", "a")],
            "dynamic-security plugin",
        ),
    ],
)
def test_what_makes_no_cluster_is_refused(tmp_path: Path, words: list[str], says: str) -> None:
    boxes = fleet.write_boxes(tmp_path / "boxes")
    command = [sys.executable, "-P", "-m", "services.cli.main", "infra", "render"]
    command += ["--fleet", str(boxes), "--out", str(tmp_path / "out"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()
