"""An MQTT receiver: keeps on its broker what ``alerts.db`` says that each topic must show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.alerts.memory import Memory
from services.consumer.row import Row
from services.mqtt.link import Link, Settings
from services.runtime.background import Background
from services.runtime.process import Process

# What the broker did not take (no right to the topic) is offered again so often.
AGAIN_S = 30.0
WINDOW = 100


class _NoRows:
    """The desk of a connection over which no rows go."""

    def delivered(self, rows: Sequence[Row]) -> None:
        """None come."""

    def refused(self, row: Row, reason: str) -> None:
        """None come."""

    def held(self, result: str) -> None:
        """None come."""

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """The lane looks itself."""


class BoardLane:
    """A connection per tenant, each with its own account."""

    def __init__(
        self, process: Process, memory: Memory, background: Background, config: dict[str, Any]
    ) -> None:
        self.name: str = config["name"]
        self._process = process
        self._memory = memory
        self._sent: dict[str, tuple[int, bytes]] = {}
        """By topic: the last that was given to its link."""
        self._waiting: set[str] = set()
        """Topics that do not show yet what they must."""
        self._down: set[str] = set()
        """Tenants whose link has said that something is wrong."""
        self._links = {
            tenant: Link(
                process,
                _NoRows(),
                background,
                _settings(process, config, tenant, account),
                lambda tenant=tenant: self._changed(tenant),  # type: ignore[misc]
                self._shown,
            )
            for tenant, account in config["tenants"].items()
        }
        for topic, number, body in memory.board(self.name):
            self._retain(topic, number, body)
        process.every(AGAIN_S, self._again)

    def wake(self) -> None:
        """Something may be new."""
        self._waiting = set()
        for topic, number, body in self._memory.board(self.name, unshown=True):
            self._waiting.add(topic)
            if self._sent.get(topic, (0, b""))[0] != number:
                self._retain(topic, number, body)
        self._count_waiting()

    def _count_waiting(self) -> None:
        gauge = self._process.stats.gauge
        gauge("plc_edge_alert_notifications_pending", receiver=self.name).set(len(self._waiting))

    def _again(self) -> None:
        for topic, number, body in self._memory.board(self.name, unshown=True):
            self._retain(topic, number, body)

    def _retain(self, topic: str, number: int, body: bytes) -> None:
        link = self._links.get(topic.split("/")[1])
        if link is not None:
            self._sent[topic] = number, body
            link.retain(topic, body)

    def _shown(self, topic: str, body: bytes) -> None:
        number, last = self._sent.get(topic, (0, b""))
        if body != last:
            return  # a newer one is on its way
        self._memory.shown(self.name, topic, number)
        counter = self._process.stats.counter
        counter("plc_edge_alert_notifications_total", receiver=self.name, result="ok").inc()
        self._waiting.discard(topic)
        self._count_waiting()

    def _changed(self, tenant: str) -> None:
        link = self._links[tenant]
        if link.code and tenant not in self._down:
            self._down.add(tenant)
            self._process.event("warning", "receiver_failed", f"{self.name}: {link.message}")
            counter = self._process.stats.counter
            counter("plc_edge_alert_notifications_total", receiver=self.name, result="failed").inc()
        elif link.up and not link.code and tenant in self._down:
            self._down.discard(tenant)
            self._process.event("info", "receiver_ok", f"{self.name} takes notifications again")

    def close(self) -> None:
        """Goodbye."""
        for link in self._links.values():
            link.finish()
            link.close()


def _settings(
    process: Process, config: dict[str, Any], tenant: str, account: dict[str, Any]
) -> Settings:
    site = process.config["site"]
    return Settings(
        hosts=tuple(config["hosts"]),
        port=config["port"],
        version=5 if config["version"] == 5 else 4,
        qos=1,
        client_id=f"{site}-alerts-{config['name']}-{tenant}",
        keepalive_s=max(1, round(config["keepalive"])),
        window=WINDOW,
        tls=config["tls"] or None,
        username=account["username"],
        password=account["password"],
        status_topic="",
        site=site,
    )
