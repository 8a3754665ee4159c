"""An edge node's connection: the will is its NDEATH, it listens for commands and for the primary
host, and births wait for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from tahutils.tahu.sparkplug_b_pb2 import Payload

from services.consumer.row import Row
from services.mqtt import packets as mqtt
from services.mqtt.desk import Desk
from services.mqtt.flow import Flow
from services.mqtt.link import Link, Settings
from services.publisher.sparkplug.flow import NodeFlow
from services.publisher.sparkplug.node import NAMESPACE, REBIRTH, Node
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.process import Process

# With several brokers, the primary host is looked for at the next one after so long.
STATE_WAIT_S = 5.0
# Of each kind of event, at most one in so long: who may publish here must not fill the log.
EVENT_S = 1.0
# The reason of an end that no message is to blame for (services/mqtt/link.py: INNOCENT_CODES).
_USE_ANOTHER_SERVER = 0x9C


class NodeLink(Link):
    """Keeps one edge node connected."""

    listens = True
    _flow: NodeFlow

    def __init__(
        self, process: Process, desk: Desk, background: Background, settings: Settings,
        changed: Callable[[], None], node: Node, primary_host: str | None, grace_s: float,
    ) -> None:  # fmt: skip
        self._node = node
        self._host_topic = f"{NAMESPACE}/STATE/{primary_host}" if primary_host else ""
        self._host_name = primary_host
        self._grace_s = grace_s if primary_host else 0.0
        self._subscribed = self._host_online = False
        self._refused = ""
        """What the broker does not let us subscribe to, in words."""
        self._host_ms = 0.0
        """Timestamp of the last STATE of this connection. No longer: a host whose clock was set
        back would never be taken for online again.
        """
        self._told_s: dict[str, float] = {}
        """When there was an event of a code."""
        node.bd_seq = -1
        super().__init__(process, desk, background, settings, changed)

    def _make_flow(self, desk: Desk, kept: Callable[[str, bytes], None]) -> Flow:
        s = self._settings
        return NodeFlow(
            desk, s.version, s.window, s.qos, self._flow_note, self._node, self._grace_s
        )

    def configure(self, plcs: list[dict[str, Any]]) -> None:
        """Other PLCs or fields: the host is given births anew."""
        if self._node.configure(plcs):
            self._flow.rebirth()
            self._bear()
            self._pump()

    def details(self) -> dict[str, object]:
        """For the State frame."""
        return {
            "born": self._flow.born,
            "rebirths": self._flow.rebirths,
            "history": self._flow.history,
            "learned": len(self._node.learned),
        }

    # -- the session ------------------------------------------------------------------------

    def _connect(self, password: str | None) -> bytes:
        s, node = self._settings, self._node
        # topics-nbirth-bdseq-increment: from 0, one more with every CONNECT; 0 after 255.
        node.bd_seq = (node.bd_seq + 1) % 256
        self._subscribed = self._host_online = False
        self._refused, self._host_ms = "", 0.0
        will = (node.topic("NDEATH"), node.will(now_ms()), 1, False)
        return mqtt.connect(
            s.version, s.client_id, s.keepalive_s, will, s.username, password, will_is_text=False
        )

    def _on_connack(self, body: bytes) -> None:
        super()._on_connack(body)
        topics = [self._node.topic("NCMD"), *([self._host_topic] if self._host_topic else [])]
        # Nothing flies yet that has a number.
        self._out.put(mqtt.subscribe(self._settings.version, 1, topics))
        if self._host_topic:
            self._wait_for_host("is not known to be online")

    def _wait_for_host(self, how: str) -> None:
        self._note("host_offline", f"primary host {self._host_name} {how}: messages are kept")

    def _on_packet(self, kind: int, body: bytes) -> None:
        version = self._settings.version
        if kind == mqtt.SUBACK:
            codes = mqtt.parse_suback(version, body)
            if any(code >= 0x80 for code in codes):
                what = self._node.topic("NCMD") if codes[0] >= 0x80 else self._host_topic
                self._refused = (
                    f"{self.host} refuses to let us subscribe to {what}: the account's access rules"
                    " on the broker must allow it"
                )
                self._note("acl", self._refused)
            self._subscribed = True
            self._bear()
        elif kind == mqtt.PUBLISH:
            topic, mid, payload = mqtt.parse_publish(version, self._incoming.flags, body)
            if mid:
                self._out.put(mqtt.puback(mid))
            if topic == self._host_topic:
                self._on_state(payload)
            elif topic == self._node.topic("NCMD"):
                self._on_command(payload)
        else:
            super()._on_packet(kind, body)

    def _bear(self) -> None:
        """Births, once all is there that they wait for."""
        if self._flow.born or not (self._greeted and self._subscribed):
            return
        if self._host_online or not self._host_topic:
            self._flow.bear()
            if self._flow.born and self.code in ("host_offline", "packet"):
                self._note("", "")

    def _note(self, code: str, message: str) -> None:
        if not code and self._refused:
            code, message = "acl", self._refused
        super()._note(code, message)

    def _event(self, level: str, code: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s.get(code, -EVENT_S) >= EVENT_S:
            self._told_s[code] = now_s
            self._process.event(level, code, text)

    def _on_command(self, payload: bytes) -> None:
        try:
            metrics = Payload.FromString(payload).metrics
        except DecodeError as e:
            self._event("warning", "bad_command", f"NCMD is no Sparkplug payload: {e}")
            return
        for metric in metrics:
            if metric.name == REBIRTH and metric.boolean_value:
                self._event("info", "rebirth", f"a host asks {self.host} for births")
                self._flow.rebirth()
                return

    def _on_state(self, payload: bytes) -> None:
        """The primary host's birth or death; an older one than the last counts for nothing."""
        try:
            state = orjson.loads(payload)
            online, ts_ms = state["online"], float(state["timestamp"])
            if not isinstance(online, bool):
                raise TypeError("online is neither true nor false")
        except (ValueError, KeyError, TypeError) as e:
            text = f"STATE of {self._host_name} cannot be read: {e!r}"
            self._event("warning", "bad_state", text)
            return
        if ts_ms < self._host_ms:
            text = f"STATE of {self._host_name} is older than its last one: it counts for nothing"
            self._event("warning", "old_state", f"{text}. Was its clock set back?")
            return
        self._host_ms = ts_ms
        self._host_online = online
        if online:
            self._bear()
        elif self._flow.born or len(self._settings.hosts) > 1:
            self._leave()
        else:
            self._wait_for_host("is offline")

    def _leave(self) -> None:
        """The host is not at this broker, so neither are we; the next one is tried
        (operational-behavior-edge-node-termination-host-offline).
        """
        sock = self._sock
        self._goodbye()
        self._write()
        self._ended_with = _USE_ANOTHER_SERVER

        def lost() -> None:
            # Not from here: the caller is reading this connection.
            if sock is not None and self._sock is sock:
                where = f"primary host {self._host_name} is offline at {self.host}"
                self._lost("host_offline", f"{where}: messages are kept")

        self._process.at(0.0, lost)

    def _goodbye(self) -> None:
        born = self._flow.born
        self._flow.die()
        # payloads-ndeath-will-message-publisher-disconnect-mqtt50: 5 must ask for the will, too.
        self._out.put(mqtt.disconnect(self._settings.version, with_will=born))

    # -- proofs ------------------------------------------------------------------------------

    def _on_pingresp(self, acked: list[Row]) -> None:
        if self._ping_end is not None:
            self._flow.on_pingresp(self._ping_end, acked)
        super()._on_pingresp(acked)

    def _pump(self) -> None:
        if self._greeted:
            self._flow.pump()
            if self._flow.wants_answer and self._ping_end is None:
                if self._flow.front_end is None:
                    self._flow.front_s = time.monotonic()
                self._ping_end = self._out.put(mqtt.PINGREQ_BYTES)
        if self._out.data:
            self._write()

    def _tick(self) -> None:
        super()._tick()
        waits = self._greeted and not self._flow.born and self._host_topic
        late = time.monotonic() - self._since_s > STATE_WAIT_S
        if waits and late and len(self._settings.hosts) > 1 and not self._flow.closing:
            self._leave()
