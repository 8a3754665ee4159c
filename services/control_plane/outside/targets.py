"""The targets that central.yaml names, each with its worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.control_plane.alerting.publication import Publication
from services.control_plane.broker import accounts
from services.control_plane.broker.worker import BrokerWorker
from services.control_plane.checking import Checker
from services.control_plane.db import Database
from services.control_plane.outside.grafana import GrafanaWorker
from services.control_plane.outside.influxdb import InfluxWorker
from services.control_plane.outside.tokens import Secrets
from services.control_plane.tables import BoxConfig
from services.control_plane.worker import Worker
from services.infra.tenant import Kinds
from services.runtime.log import Log

# Configurations whose fields are remembered.
_KNOWN = 4_096


def make(
    config: dict[str, Any],
    database: Database,
    checker: Checker,
    alerts: Publication | None,
    log: Log,
) -> tuple[BrokerWorker | None, dict[str, Worker]]:
    """The broker's, which accounts are made with (and which ``alerts`` follows), and all by name;
    their threads run.
    """
    state = Path(config["state"])
    workers: list[Worker] = []
    broker = None
    if config["broker"] is not None:
        key = accounts.load_key(state)
        broker = BrokerWorker(database, config["broker"], key, log, alerts)
        workers.append(broker)
    if config["influxdb"] is not None:
        secrets, fields, grafana = Secrets(state), Fields(checker), None
        if config["grafana"] is not None:
            grafana = GrafanaWorker(database, config["grafana"], secrets, log)
            workers.append(grafana)
        workers.append(InfluxWorker(database, config["influxdb"], secrets, fields, grafana, log))
    for worker in workers:
        worker.start()
    return broker, {worker.target: worker for worker in workers}


class Fields:
    """Which fields a configuration has, by how they are condensed: read once, and apart from this
    process, as every configuration that somebody sent.
    """

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._known: dict[str, Kinds] = {}

    def __call__(self, row: BoxConfig) -> Kinds:
        """Nothing, where this version of the program would not take it any more."""
        if row.sha256 not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._checker.check(row.yaml, row.layouts)
            self._known[row.sha256] = Kinds(*map(frozenset, found.get("kinds", ())))
        return self._known[row.sha256]
