"""A client that says what a broker allows: connect, publish, receive."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WAIT_S = 10.0


class Client:
    """One connection; ``reason`` is what the broker answered, or the TLS error."""

    def __init__(
        self,
        port: int,
        *,
        ca: Path,
        host: str = "localhost",
        user: str | None = None,
        password: str | None = None,
        version: int = 5,
        client_id: str = "",
        cert: tuple[Path, Path] | None = None,
        websockets: bool = False,
        tls_version: ssl.TLSVersion | None = None,
        will: str = "",
        persistent: bool = False,
    ) -> None:
        """``will``: its topic, retained. ``persistent``: a session that stays (MQTT 3.1.1)."""
        self.reason: str | None = None
        self.messages: list[tuple[str, bytes]] = []
        self._answers: dict[tuple[str, int], Any] = {}
        self._changed = threading.Condition()
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self._version = version
        self._mqtt = mqtt = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            transport="websockets" if websockets else "tcp",
            reconnect_on_failure=False,
            clean_session=None if version == 5 else not persistent,
        )
        if will:
            mqtt.will_set(will, b"will", qos=1, retain=True)
        context = ssl.create_default_context(cafile=str(ca))
        if cert is not None:
            context.load_cert_chain(*cert)
        if tls_version is not None:
            # Else our own library would refuse, not the broker.
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = tls_version
        mqtt.tls_set_context(context)
        if user is not None:
            mqtt.username_pw_set(user, password)
        mqtt.on_connect = self._on_connect
        mqtt.on_disconnect = lambda c, u, flags, reason, p: self._say("end", 0, str(reason))
        mqtt.on_publish = lambda c, u, mid, reason, p: self._say("publish", mid, reason)
        mqtt.on_subscribe = lambda c, u, mid, reasons, p: self._say("subscribe", mid, reasons)
        mqtt.on_message = self._on_message
        self._address = host, port
        self.session_present = False

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        self.session_present = flags.session_present
        self._say("connect", 0, str(reason))

    def _say(self, kind: str, mid: int, value: Any) -> None:
        with self._changed:
            self._answers[kind, mid] = value
            self._changed.notify_all()

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()

    def __enter__(self) -> Self:
        try:
            self._mqtt.connect(*self._address, keepalive=30)
        except (OSError, ValueError) as e:
            self.reason = f"{type(e).__name__}: {e}"
            return self
        self._mqtt.loop_start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._answers.keys() & {("connect", 0), ("end", 0)}, WAIT_S
            )
            said = self._answers.get(("connect", 0)) or self._answers.get(("end", 0))
        self.reason = str(said)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    @property
    def connected(self) -> bool:
        """The broker took the connection."""
        return self.reason == "Success"

    @property
    def ended(self) -> bool:
        """The broker has ended the connection."""
        return ("end", 0) in self._answers

    def drop(self) -> None:
        """Ends as one whose cable is cut: without a word, so that the broker sends the will."""
        sock = self._mqtt.socket()
        assert sock is not None
        sock.close()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> str:
        """The reason of the acknowledgement; MQTT 3.1.1 always says Success."""
        mid = self._mqtt.publish(topic, payload, qos=1, retain=retain).mid
        with self._changed:
            assert self._changed.wait_for(lambda: ("publish", mid) in self._answers, WAIT_S)
            return str(self._answers["publish", mid])

    def subscribe(self, *filters: str) -> list[str]:
        """Waits for the acknowledgement; what it says of each."""
        _, mid = self._mqtt.subscribe([(f, 1) for f in filters])
        assert mid is not None
        with self._changed:
            assert self._changed.wait_for(lambda: ("subscribe", mid) in self._answers, WAIT_S)
            return [str(reason) for reason in self._answers["subscribe", mid]]

    def wait_any(self) -> bool:
        """True when some message came."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.messages), WAIT_S)

    def wait_for(self, topic: str, payload: bytes) -> bool:
        """True when the message came."""
        with self._changed:
            return self._changed.wait_for(lambda: (topic, payload) in self.messages, WAIT_S)
