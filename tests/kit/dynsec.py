"""A Mosquitto whose accounts a control plane keeps, and clients that try what they may do there."""

from __future__ import annotations

import json
import queue
import time
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.control_plane.broker.accounts import METER
from services.control_plane.broker.dynsec import Dynsec
from tests.kit.broker import Broker
from tests.kit.common import until

PASSWORD = "geheim-admin"
# Two connections of one account would end each other.
OTHER = "outro-admin"


class Accounts(Broker):
    """With TLS, and the plugin."""

    def __init__(self, options: str = "") -> None:
        super().__init__(tls=True, dynsec=PASSWORD, options=options)
        self.password_file = self.folder / "admin.pw"
        self.password_file.write_text(PASSWORD)
        found = self.on_disk()
        found["clients"].append({**found["clients"][0], "username": OTHER})
        self.initial = json.dumps(found)
        self.dynsec.write_text(self.initial)

    def section(self) -> dict[str, Any]:
        """``broker`` of central.yaml."""
        assert self.authority is not None
        return {
            "host": self.host,
            "port": self.port,
            "password_file": str(self.password_file),
            "tls": {"ca": str(self.authority.ca)},
        }

    def ask(self, *commands: dict[str, Any]) -> list[Any]:
        """As somebody else with the administrator's password would."""
        assert self.authority is not None
        tls = {"ca": str(self.authority.ca), "cert": None}
        config = {"host": self.host, "port": self.port, "username": OTHER, "tls": tls}
        changes: list[str | None] = []
        own = Dynsec({**config, "password": {"file": str(self.password_file)}}, changes.append)
        try:
            until(lambda: own.is_up, 10, lambda: str(changes))
            return own.ask(commands)
        finally:
            own.close()

    def restart(self) -> None:
        """Whoever keeps accounts here connects again, and looks at everything.

        The plugin of 2.0.11 empties its file before it writes it: killed between the two it has
        lost everything, and somebody has to begin with `dynsec init`, as the manual says.
        """
        self.stop(kill=True)
        if not self.dynsec.read_text():
            self.dynsec.write_text(self.initial)
        self.start()

    def on_disk(self) -> dict[str, Any]:
        """What the plugin has written; it empties the file first."""
        found: dict[str, Any] = json.loads(until(self.dynsec.read_text, 5, "an empty file"))
        return found

    def accounts(self) -> set[str]:
        """Beside the administrators and the meter."""
        return {c["username"] for c in self.on_disk()["clients"]} - {"admin", OTHER, METER}

    def usable(self, tenant: str) -> tuple[set[str], dict[str, set[str]]]:
        """A tenant's accounts that can connect now, and what their roles allow: topics by role."""
        found = self.on_disk()
        own = [c for c in found["clients"] if c["username"].partition(".")[0] == tenant]
        own = [c for c in own if not c.get("disabled")]
        in_use = {r["rolename"] for c in own for r in c["roles"]}
        topics = {
            r["rolename"]: {a["topic"] for a in r["acls"] if a["allow"]}
            for r in found["roles"]
            if r["rolename"] in in_use
        }
        return {c["username"] for c in own}, topics

    def client(self, made: dict[str, Any]) -> Client:
        """A connection with a credential that the API has just answered."""
        return Client(self, made["username"], made["secret"])


class Client:
    """One connection; what it tries is answered with the broker's own word."""

    def __init__(self, broker: Accounts, username: str, password: str) -> None:
        assert broker.authority is not None
        self.connected: queue.Queue[str] = queue.Queue()
        self.ended_s: float | None = None
        self.messages: queue.Queue[str] = queue.Queue()
        self._said: queue.Queue[str] = queue.Queue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.username_pw_set(username, password)
        client.tls_set(str(broker.authority.ca))
        client.on_connect = lambda _c, _u, _f, reason, _p: self.connected.put(str(reason))
        client.on_publish = lambda _c, _u, _m, reason, _p: self._said.put(str(reason))
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._said.put(str(reasons[0]))
        client.on_message = lambda _c, _u, message: self.messages.put(message.topic)
        client.on_disconnect = self._on_disconnect
        self._client = client
        client.connect(broker.host, broker.port)
        client.loop_start()

    def _on_disconnect(self, *_: Any) -> None:
        self.ended_s = time.monotonic()

    def answer(self) -> str:
        """Of the broker to CONNECT: ``Success``, or why not."""
        return self.connected.get(timeout=10)

    @property
    def is_connected(self) -> bool:
        """Still."""
        return self.ended_s is None

    def publish(self, topic: str) -> str:
        """The reason in PUBACK."""
        self._client.publish(topic, "1", 1)
        return self._said.get(timeout=10)

    def subscribe(self, topic: str) -> str:
        """The reason in SUBACK."""
        self._client.subscribe(topic, 1)
        return self._said.get(timeout=10)

    def close(self) -> None:
        """Ends it."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connected(broker: Accounts, made: dict[str, Any], timeout_s: float = 10.0) -> Client:
    """A connection with a credential, as soon as the broker takes it."""
    found: list[Client] = []

    def taken() -> bool:
        client = broker.client(made)
        if client.answer() == "Success":
            found.append(client)
            return True
        client.close()
        return False

    until(taken, timeout_s, lambda: broker.log()[-2_000:])
    return found[0]
