"""A Sparkplug host application, and a decoder that is not ours (npm `sparkplug-payload`)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions
from tahutils.tahu.sparkplug_b_pb2 import Payload

from services.runtime.clock import now_ms
from tests.kit.common import ROOT, until
from tests.kit.node import package
from tests.kit.publisher_rig import PLC, mqtt_config

HOST = "scada"
STATE = f"spBv1.0/STATE/{HOST}"
NODE = ("acme", "planta-sp")
FIELDS = [
    {"name": "n", "type": "DINT", "unit": "", "scaled": False},
    {"name": "temperatura", "type": "REAL", "unit": "°C", "scaled": False},
    {"name": "rodando", "type": "BOOL", "unit": "", "scaled": False},
]


def plc(
    fields: list[dict[str, Any]] | None = None,
    machines: list[str | None] | None = None,
    zone: str = "UTC",
    **more: Any,
) -> dict[str, Any]:
    """A PLC as rendered for a Sparkplug output: one group, ``db500``."""
    group: dict[str, Any] = {
        "name": "db500",
        "machines": machines or [None],
        "fields": fields or FIELDS,
        "timezone": zone,
    }
    return {**PLC, "groups": [group], **more}


def sparkplug_config(
    run: Path, port: int, plcs: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """A Sparkplug output named ``central``, as ``plc-edge apply`` renders it."""
    own = {"type": "sparkplug", "qos": 0, "primary_host": None, "host_grace": 0.5}
    return mqtt_config(run, port, [plc()] if plcs is None else plcs, **{**own, **options})


@dataclass
class Heard:
    """One message as the host got it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    connection: int
    """Counts the host's own connections: between two it may have missed messages."""

    @property
    def kind(self) -> str:
        """NBIRTH, DDATA …"""
        return self.topic.split("/")[2]


class HostApplication:
    """A host on one broker: subscribes, then says that it is online, with the will that it is not;
    keeps what it hears.
    """

    def __init__(self, port: int, online: bool = True, broker: str = "127.0.0.1") -> None:
        self.heard: list[Heard] = []
        self.connections = 0
        self._online = online
        self._subscribed = threading.Event()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"host-{os.getpid()}-{id(self)}",
            protocol=paho.MQTTv5,
        )
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self._will()
        client.on_subscribe = lambda *_: self._on_subscribed()
        client.reconnect_delay_set(1, 1)
        self._will()
        client.connect(broker, port)
        client.loop_start()
        assert self._subscribed.wait(10), "the host did not get its subscription"

    def _will(self) -> None:
        self._ms = now_ms()
        if self._online:
            self._client.will_set(STATE, self.state(False), 1, True)

    def state(self, online: bool, ts_ms: int = 0) -> bytes:
        """A STATE of this connection."""
        return orjson.dumps({"online": online, "timestamp": ts_ms or self._ms})

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        self.connections += 1
        client.subscribe([("spBv1.0/#", SubscribeOptions(qos=1))])

    def _on_subscribed(self) -> None:
        if self._online:
            self._client.publish(STATE, self.state(True), 1, True)
        self._subscribed.set()

    def _on_message(self, _client: object, _user: object, m: paho.MQTTMessage) -> None:
        if m.topic.split("/")[1] != "STATE" and "/NCMD/" not in m.topic:
            self.heard.append(Heard(m.topic, bytes(m.payload), m.qos, m.retain, self.connections))

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Anything, at QoS 1; returns when the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(5)

    def rebirth(self, payload: bytes | None = None) -> None:
        """The command, or another payload in its place."""
        if payload is None:
            command = Payload(timestamp=now_ms())
            metric = command.metrics.add()
            metric.name, metric.datatype, metric.boolean_value = "Node Control/Rebirth", 11, True
            payload = command.SerializeToString()
        self.publish(f"spBv1.0/{NODE[0]}/NCMD/{NODE[1]}", payload)

    def count(self, kind: str) -> int:
        """Messages of a type that were heard."""
        return sum(h.kind == kind for h in list(self.heard))

    def wait(self, kind: str, count: int = 1, timeout_s: float = 10) -> None:
        """Returns when so many of a type were heard."""

        def heard() -> str:
            return f"{count} {kind} in {[h.kind for h in self.heard][-20:]}"

        until(lambda: self.count(kind) >= count, timeout_s, heard)

    def freeze(self) -> None:
        """Reads nothing any more; what the broker still sends it is lost."""
        self._client.loop_stop()

    def leave(self) -> None:
        """Dies: the broker publishes the will."""
        self.freeze()
        if (sock := self._client.socket()) is not None:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def decode(heard: list[Heard]) -> list[dict[str, Any]]:
    """What was heard as `sparkplug-payload` reads it, in order."""
    node, folder = package("sparkplug-payload", "1.0.3")
    lines = "".join(f"{h.topic} {base64.b64encode(h.payload).decode()}\n" for h in heard)
    script = ROOT / "tests" / "kit" / "sparkplug_decode.cjs"
    done = subprocess.run(
        [node, str(script), str(folder)], input=lines, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    decoded = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(decoded) == len(heard)
    return decoded
