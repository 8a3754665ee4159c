"""Commands to Mosquitto's dynamic-security plugin, over MQTT.

A batch of commands is one message and is answered by one. The connection comes back by itself;
whoever asks while it is away gets ``Away``.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.control_plane.worker import Away, Refused
from services.runtime import secrets
from services.runtime.tls import client_context, load_certificate

TOPIC = "$CONTROL/dynamic-security/v1"
ANSWERS = f"{TOPIC}/response"
ANSWER_S = 5.0
RETRY_MAX_S = 5
# Beside ping requests nothing else shows that a broker behind a dead link is gone.
KEEPALIVE_S = 20
# Commands of a message, names of an answer: some 30 KB, below any broker's packet limit.
BATCH, NAMES = 100, 500

Command = dict[str, Any]


class Dynsec:
    """One connection, of the plugin's administrator."""

    def __init__(self, config: dict[str, Any], on_change: Callable[[str | None], None]) -> None:
        """``on_change`` is told (from another thread) None when the plugin can be asked, and why
        where it cannot be.
        """
        self._on_change = on_change
        self._batches = itertools.count(1)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._up = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set(config["username"], secrets.resolve(config["password"]))
        if config["tls"]:
            context = client_context(config["tls"]["ca"])
            if config["tls"]["cert"]:
                load_certificate(context, config["tls"]["cert"], config["tls"]["key"])
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = lambda *_: self._down("cannot be reached")
        client.on_message = lambda _c, _u, message: self._answers.put(json.loads(message.payload))
        client.reconnect_delay_set(1, RETRY_MAX_S)
        self._client = client
        client.connect_async(config["host"], config["port"], KEEPALIVE_S)
        client.loop_start()

    def close(self) -> None:
        """Ends the connection."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent."""
        return self._up.is_set()

    def _on_connect(self, client: paho.Client, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._down(str(reason))
        else:
            client.subscribe(ANSWERS, 1)

    def _on_subscribe(self, _c: Any, _d: Any, _mid: Any, reasons: Any, _p: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._down("refuses the plugin's topics: is the plugin loaded, the account its admin?")
            return
        self._up.set()
        self._on_change(None)

    def _on_disconnect(self, _c: Any, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._down(str(reason))

    def _down(self, why: str) -> None:
        self._up.clear()
        self._on_change(why)

    # -- commands ------------------------------------------------------------------------

    def ask(self, commands: Sequence[Command], missing: str = "") -> list[Any]:
        """The ``data`` of each command's answer; None where its error is ``missing``.

        Raises Away. Raises Refused, with the plugin's own words for the first error, when all
        have been sent.
        """
        found: list[Any] = []
        errors: list[str] = []
        for first in range(0, len(commands), BATCH):
            batch = commands[first : first + BATCH]
            for command, response in zip(batch, self._send(batch), strict=True):
                error = response.get("error")
                if error is not None and error != missing:
                    errors.append(f"{command['command']}: {error}")
                found.append(None if error is not None else response.get("data", {}))
        if errors:
            raise Refused(errors[0])
        return found

    def _send(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        if not self._up.is_set():
            raise Away
        mark = str(next(self._batches))
        marked = [{**c, "correlationData": mark} for c in commands]
        # QoS 0: one that is lost with its connection must not come, outdated, over the next.
        self._client.publish(TOPIC, json.dumps({"commands": marked}))
        end_s = time.monotonic() + ANSWER_S
        while True:
            try:
                answers = self._answers.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                raise Away from None
            # One that came too late belongs to nobody any more.
            responses: list[dict[str, Any]] = answers.get("responses", [])
            if len(responses) == len(commands) and responses[0].get("correlationData") == mark:
                return responses

    def names(self, what: str) -> list[str]:
        """Of all ``clients`` or ``roles``."""
        command = {"clients": "listClients", "roles": "listRoles"}[what]
        found: list[str] = []
        while True:
            page = {"command": command, "verbose": False, "count": NAMES, "offset": len(found)}
            (data,) = self.ask([page])
            found += data[what]
            if not data[what] or len(found) >= data["totalCount"]:
                return found
