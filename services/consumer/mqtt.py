"""The centre's side of a consumer: the same rows, from a broker instead of a store.

A persistent session and QoS 1 make the broker keep what this process has not acknowledged, and it
acknowledges after the commit. What the broker sends again (this process died, the connection broke)
``seen`` tells from what is new. paho runs in a thread of its own; everything else is in the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from bus.frames import GAP_ROW, SAMPLE_ROW, Heartbeat
from services.consumer.row import OTHER_ROW, Row
from services.consumer.source import STATE_S, Source, Taker
from services.runtime import secrets
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.runtime.process import Process
from services.runtime.tls import client_context, load_certificate

# What boxes send (CONTRACT §4).
TOPICS = ("plc/+/+", "plc/+/+/gap", "plc/+/+/heartbeat")
# How long the broker keeps our session while we are away: a week's holiday and more.
SESSION_S = 14 * 86_400
KEEPALIVE_S = 30
RETRY_MAX_S = 3
# Epochs and numbers that any database can hold.
NUMBER_MAX = 2**53


OnStatus = Callable[[str, str, dict[str, Any]], None]
"""(tenant, box, message) of what the broker keeps of a box's connection: CONTRACT §4."""


class MqttIntake(Source):
    """One persistent session. The process's configuration has ``mqtt``: ``host``, ``port``,
    ``client_id`` (the session's name, never another's), and ``username``, ``password`` (a
    reference) and ``tls`` ({ca, cert, key}) or None.
    """

    def __init__(
        self,
        process: Process,
        taker: Taker,
        topics: Sequence[str] = TOPICS,
        *,
        others: bool = False,
        on_status: OnStatus | None = None,
    ) -> None:
        """``others``: what is no message of ours is a row too (``OTHER_ROW``). ``on_status``, for
        who asks for ``edge/…/status`` too, is called in the loop; live, as a heartbeat: it may be
        lost with the process, and comes again with the next connection because it is retained.
        """
        super().__init__(process, taker)
        self._topics = topics
        self._others = others
        self._on_status = on_status
        self._config: dict[str, Any] = process.config["mqtt"]
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        """From paho's thread to the loop."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._connection = 0
        """Counts connections: an acknowledgement is for the one that the message came over."""
        self._up = False
        self._flying = 0
        self._orders = 0
        self._rows: list[Row] = []
        self._client: paho.Client | None = None
        self._expiry_s = SESSION_S
        self._malformed = process.stats.counter("plc_edge_published_total", output=self.name,
                                                result="malformed")  # fmt: skip

    def open(self) -> None:
        """Registers with the loop and connects."""
        self._process.on_readable(self._wake, self._collect)
        self._process.every(STATE_S, self._say_state)
        self._taker.begin()
        self._connect()

    def restart(self) -> None:
        """On a new connection the broker sends again what is not acknowledged."""
        self._disconnect()
        self._taker.begin()
        self._connect()

    # -- the broker's side ---------------------------------------------------------------

    def _connect(self) -> None:
        config = self._config
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config["client_id"],
            protocol=paho.MQTTv5,
            manual_ack=True,
        )
        if config["username"] is not None:
            password = secrets.resolve(config["password"]) if config["password"] else None
            client.username_pw_set(config["username"], password)
        if config["tls"]:
            context = client_context(config["tls"]["ca"])
            if config["tls"]["cert"]:
                load_certificate(context, config["tls"]["cert"], config["tls"]["key"])
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.reconnect_delay_set(1, RETRY_MAX_S)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_S
        # The broker's window is ours: it holds back what was not asked for.
        properties.ReceiveMaximum = self._taker.window
        self._client = client
        client.connect_async(
            config["host"], config["port"], KEEPALIVE_S, clean_start=False, properties=properties
        )
        client.loop_start()

    def _disconnect(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            properties = Properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = self._expiry_s
            client.disconnect(properties=properties)
            client.loop_stop()
        self._connection += 1
        self._up, self._flying = False, 0

    def _in_loop(self, call: Callable[[], None]) -> None:
        self._calls.put(call)
        os.eventfd_write(self._wake, 1)

    def _on_connect(
        self, client: paho.Client, _data: Any, flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            words = f"{self._where} refuses us: {reason}"
            self._in_loop(lambda: self.status("down", "auth", words))
            return
        client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._topics])
        self._in_loop(lambda: self._connected(client, bool(flags.session_present)))

    def _on_disconnect(self, client: paho.Client, *_: Any) -> None:
        self._in_loop(lambda: self._gone(client))

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        topic, payload, mid = message.topic, bytes(message.payload), message.mid
        if not message.qos:
            mid = 0  # nothing to acknowledge
        self._in_loop(lambda: self._came(client, topic, payload, mid))

    @property
    def _where(self) -> str:
        return f"{self._config['host']}:{self._config['port']}"

    # -- in the loop ---------------------------------------------------------------------

    def _collect(self) -> None:
        os.eventfd_read(self._wake)
        self._rows = []
        while not self._calls.empty():
            self._calls.get()()
        if self._rows:
            hit("consumer.taken")
            self._flying += len(self._rows)
            self._taker.take(self._rows)

    def _connected(self, client: paho.Client, session_present: bool) -> None:
        if client is not self._client:
            return
        self._connection += 1
        self._up, self._flying = True, 0
        if not session_present:
            text = "the broker has no session of ours: what came while we were away is not kept"
            self._process.event("info", "session_begun", text)
        self.status("ok")

    def _gone(self, client: paho.Client) -> None:
        if client is self._client:
            self._connection += 1  # what it has not acknowledged comes again
            self._up, self._flying = False, 0
            self.status("down", "lost", f"connection to {self._where} lost")

    def _came(self, client: paho.Client, topic: str, payload: bytes, mid: int) -> None:
        if client is not self._client:
            return
        root, locatario, plc, *kind = topic.split("/")
        try:
            if not payload and kind == ["heartbeat"]:  # it clears the retained one
                self._taker.beat(Heartbeat(plc, locatario, removed=True))
                self._ack(mid)
                return
            message = orjson.loads(payload)
            if root == "edge" and self._on_status is not None:
                self._on_status(locatario, plc, message)
                self._ack(mid)
                return
            if kind == ["heartbeat"]:
                self._taker.beat(_heartbeat(locatario, plc, message))
                self._ack(mid)
                return
            is_gap = kind == ["gap"]
            lane = "backfill" if message.get("replay") else "live"
            row_kind = GAP_ROW if is_gap else SAMPLE_ROW
            seq = message["first_seq" if is_gap else "seq"]
            numbers = (int(message["ts"]), int(message["epoch"]), int(seq))
            if not all(0 <= n < NUMBER_MAX for n in numbers):
                raise ValueError(f"ts, epoch and seq are {numbers}")
        except (
            ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
        ) as e:  # fmt: skip
            # Nobody can mend it, and held back it would fill the window.
            if payload or root != "edge":  # an empty status clears the retained one
                self._malformed.inc()
                self._process.log.warning("no message of ours", topic=topic, error=repr(e))
            if not payload or not self._others:
                self._ack(mid)
                return
            lane, row_kind, numbers = "live", OTHER_ROW, (now_ms(), 0, 0)
        self._orders += 1
        place = (self._connection, lane, self._orders, mid)
        self._rows.append(Row(*place, row_kind, plc, locatario, *numbers, payload))

    # -- the taker's side ----------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Connected."""
        return self._up

    @property
    def flying(self) -> int:
        """Rows given and not settled."""
        return self._flying

    def _settle(self, row: Row, reason: str = "") -> bool:
        if row.done:
            return False
        row.done = True
        if row.session == self._connection:
            # Over another connection the number may be another message's.
            self._flying -= 1
            hit("consumer.before_receipt")
            self._ack(row.position)
        return True

    def _ack(self, mid: int) -> None:
        if mid and self._client is not None:
            self._client.ack(mid, 1)

    def _settled_some(self) -> None:
        """Each acknowledgement is on its way already."""

    def close(self) -> None:
        """Leaves; the session stays at the broker."""
        self._disconnect()
        self._process.forget(self._wake)
        os.close(self._wake)

    def forget_session(self) -> None:
        """Has the broker keep nothing for us after ``close``, if it is there to be told."""
        self._expiry_s = 0


def _heartbeat(locatario: str, plc: str, message: dict[str, Any]) -> Heartbeat:
    names = ("ip", "interval_s", "status", "scan_ms", "latency_ms", "reads_ok", "reads_failed",
             "uptime_s", "pending", "failure")  # fmt: skip
    fields = {name: message[name] for name in names if name in message}
    return Heartbeat(plc, locatario, ts_ms=message["ts"], **fields)
