"""MQTT output: one connection per tenant, each with the will, the status and the PLCs of its own.

Tenants share the output's window and its cursor: a tenant whose connection is refused holds the
others once the window is full. Outputs with ``locatarios:`` keep tenants apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from services.consumer.row import Row
from services.mqtt.link import Link, Settings
from services.publisher.outputs.base import CLOSE_WAIT_S, Desk
from services.publisher.outputs.mqtt_signs import Signs
from services.runtime import tls_faults
from services.runtime.background import Background
from services.runtime.process import Process

# So often it is looked whether the signs have passed.
SIGNS_S = 1.0


class MqttOutput:
    """Sends each row over its tenant's connection."""

    def __init__(self, process: Process, desk: Desk, background: Background | None = None) -> None:
        """``background`` connects; the output's own unless given."""
        self._process = process
        self._desk = desk
        self._background = background or Background(process)
        self._config: dict[str, Any] = process.config["output"]
        self.window: int = self._config["window"]
        scheme = "mqtts" if self._config["tls"] else "mqtt"
        hosts = ",".join(self._config["hosts"])
        self.target = f"{scheme}://{hosts}:{self._config['port']}"
        self._links: dict[str, Link] = {}
        self._signs: dict[str, Signs] = {}
        self._tls_hosts: set[str] = set()
        """Brokers that speak TLS, while this output does not."""
        only = self._config.get("locatarios")
        tenants = [p["locatario"] for p in process.config["plcs"]]
        tenants = [t for t in tenants if only is None or t in only]
        for tenant in tenants or [process.config["locatario"]]:
            self._link(tenant)
        process.every(SIGNS_S, self._changed)

    def _link(self, tenant: str) -> Link:
        """The tenant's connection; opened now where there is none yet."""
        link = self._links.get(tenant)
        if link is None:
            settings = self._settings(tenant)
            account = f" or account {settings.username}" if settings.username else ""
            self._signs[tenant] = Signs(f"client id {settings.client_id}{account}")
            link = self._links[tenant] = self._open(tenant)
        return link

    def _open(self, tenant: str) -> Link:
        return Link(
            self._process,
            self._desk,
            self._background,
            self._settings(tenant),
            lambda: self._look(tenant),
        )

    def _settings(self, tenant: str) -> Settings:
        config, site = self._config, self._process.config["site"]
        # An account per tenant: brokers that take the account for the client id
        # (use_username_as_clientid) evict the twin.
        account = config["accounts"].get(tenant, config)
        client_id = config.get("client_id") or f"{site}-{self._process.item}"
        if not config.get("client_id") or tenant != self._process.config["locatario"]:
            client_id += f"-{tenant}"
        return Settings(
            hosts=tuple(config["hosts"]),
            port=config["port"],
            version=5 if config["version"] == 5 else 4,
            qos=config["qos"],
            client_id=client_id,
            keepalive_s=max(1, round(config["keepalive"])),
            window=self.window,
            tls=config["tls"] or None,
            username=account.get("username"),
            password=account.get("password"),
            status_topic=f"edge/{tenant}/{site}/status",
            site=site,
        )

    def deliver(self, rows: Sequence[Row]) -> None:
        """Takes rows."""
        for tenant, some in groupby(rows, lambda row: row.locatario):
            self._link(tenant).push(list(some))

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Retained heartbeat."""
        self._link(locatario).retain(f"plc/{locatario}/{plc}/heartbeat", payload)

    def _look(self, tenant: str) -> None:
        """A link has changed."""
        link, now_s = self._links[tenant], time.monotonic()
        host, port = link.host, self._config["port"]
        ask = self._signs[tenant].look(host, link.up, link.code, link.message, now_s)
        if link.up:
            self._tls_hosts.discard(host)
        elif ask and not self._config["tls"]:

            def answered(speaks_tls: object) -> None:
                if speaks_tls is True:
                    self._tls_hosts.add(host)
                    self._changed()

            self._background.run(lambda: tls_faults.speaks_tls(host, port), answered)
        self._changed()

    def _changed(self) -> None:
        links = self._links.values()
        bad = next((link for link in links if link.code), None)
        status = "degraded" if any(link.up for link in links) else "down"
        if fault := self._sign():
            # Up and down by turns: said once, and until it is over.
            self._desk.status("degraded", fault.code, str(fault))
        elif bad and bad.code == "lost" and bad.host in self._tls_hosts:
            fault = tls_faults.wants_tls(f"{bad.host}:{self._config['port']}", http=False)
            self._desk.status(status, fault.code, str(fault))
        elif bad:
            self._desk.status(status, bad.code, bad.message)
        elif links and all(link.up for link in links):
            self._desk.status("ok")

    def _sign(self) -> tls_faults.Fault | None:
        now_s = time.monotonic()
        return next((f for s in self._signs.values() if (f := s.verdict(now_s))), None)

    def details(self) -> dict[str, object]:
        """For the State frame."""
        links = self._links.values()
        return {
            "connected": sum(link.up for link in links),
            "connections": len(links),
            "host": ",".join(dict.fromkeys(link.host for link in links)),
        }

    def close(self) -> None:
        """Waits a moment for what is in flight, then says offline and goodbye."""
        for link in self._links.values():
            link.finish()
        deadline_s = time.monotonic() + CLOSE_WAIT_S
        while time.monotonic() < deadline_s and any(k.flying for k in self._links.values()):
            self._process.step()
            time.sleep(0.002)  # a stopping process's step does not wait
        for link in self._links.values():
            link.close()


def make(process: Process, desk: Desk) -> MqttOutput:
    """For the table of kinds."""
    return MqttOutput(process, desk)
