"""Sparkplug output: an edge node per tenant, the tenant's PLCs its devices (docs/sparkplug.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from services.mqtt.link import Link
from services.publisher.outputs.base import Desk
from services.publisher.outputs.mqtt import MqttOutput
from services.publisher.sparkplug.link import NodeLink
from services.publisher.sparkplug.node import Node
from services.runtime.process import Process


class SparkplugOutput(MqttOutput):
    """Sends each row over its tenant's edge node; connections and windows are an MQTT output's."""

    def __init__(self, process: Process, desk: Desk) -> None:
        self._nodes: dict[str, tuple[Node, NodeLink]] = {}
        super().__init__(process, desk)
        process.on_config(self._configure)

    def _open(self, tenant: str) -> Link:
        # The first message must be the birth, so nothing is said under `edge/`.
        settings = replace(self._settings(tenant), status_topic="")
        process, config = self._process, self._config
        node = Node(tenant, process.config["site"], self._plcs(tenant))
        link = NodeLink(
            process, self._desk, self._background, settings, lambda: self._look(tenant),
            node, config["primary_host"], config["host_grace"],
        )  # fmt: skip
        self._nodes[tenant] = node, link
        return link

    def _plcs(self, tenant: str) -> list[dict[str, Any]]:
        return [p for p in self._process.config["plcs"] if p["locatario"] == tenant]

    def _configure(self, _config: dict[str, Any]) -> None:
        for tenant, (_, link) in self._nodes.items():
            link.configure(self._plcs(tenant))

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Only whether the PLC is offline: what a dead reader cannot say itself."""
        self._link(locatario)
        node, _ = self._nodes[locatario]
        if payload and orjson.loads(payload)["status"] == "offline":
            node.offline.add(plc)
        else:
            node.offline.discard(plc)

    def details(self) -> dict[str, object]:
        """For the State frame."""
        nodes = {tenant: link.details() for tenant, (_, link) in self._nodes.items()}
        return {**super().details(), "nodes": nodes}


def make(process: Process, desk: Desk) -> SparkplugOutput:
    """For the table of kinds."""
    return SparkplugOutput(process, desk)
