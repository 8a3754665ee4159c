"""A tenant's own reader at the broker: what an account that may only read is sent."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from services.cli.central_demo.broker import ADDRESS, CentralBroker

ANSWER_S = 10.0


@dataclass
class Account:
    """One connection with TLS and a password; asks for everything where ``reads``."""

    broker: CentralBroker
    name: str
    password: str = ""
    reads: bool = False
    topics: set[str] = field(default_factory=set)
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Of data, in the order they came; grows."""
    refused: str = ""
    """Why the broker does not let it in."""

    def __post_init__(self) -> None:
        self._answered = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self.name, protocol=mqtt.MQTTv5)
        client.username_pw_set(self.name, self.password or self.broker.password(self.name))
        client.tls_set(str(self.broker.ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self._answered.set()
        client.on_message = self._on_message
        self._client = client

    def _on_connect(
        self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _p: Any
    ) -> None:
        if reason.is_failure:
            self.refused = str(reason)
            client.disconnect()
        elif self.reads:
            client.subscribe("#", qos=1)
            return
        self._answered.set()

    def _on_message(self, _client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.topics.add(message.topic)
        if message.topic.startswith("plc/") and message.topic.count("/") == 2:
            self.messages.append(json.loads(message.payload))

    def publish(self, topic: str) -> str:
        """The broker's word on a message to ``topic``; empty where it takes it."""
        published = threading.Event()
        said: list[ReasonCode] = []

        def on_publish(_c: Any, _u: Any, _mid: int, reason: ReasonCode, _p: Any) -> None:
            said.append(reason)
            published.set()

        self._client.on_publish = on_publish
        self._client.publish(topic, b"{}", qos=1)
        if not published.wait(ANSWER_S):
            return "no answer"
        return str(said[0]) if said[0].is_failure else ""

    def __enter__(self) -> Self:
        self._client.connect(ADDRESS, self.broker.ports.tls)
        self._client.loop_start()
        if not self._answered.wait(ANSWER_S):
            self.refused = "no answer"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
