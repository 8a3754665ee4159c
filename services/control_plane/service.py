"""The control plane: HTTP in one thread, requests in others, the run loop of every process here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.control_plane import app, audit
from services.control_plane.alerting.asking import Engines
from services.control_plane.alerting.publication import Publication
from services.control_plane.alerting.sealing import Seal
from services.control_plane.broker import accounts
from services.control_plane.broker.worker import Worker
from services.control_plane.checking import Checker
from services.control_plane.db import Database
from services.control_plane.unit import Core
from services.runtime import serving
from services.runtime.errors import ConfigError, Problem
from services.runtime.process import Process

# Boxes keep a connection each while they wait for a configuration.
MAX_CONNECTIONS = 4_096


def setup(process: Process) -> Callable[[], None]:
    """Opens the database and the HTTP port; returns ``close``."""
    config = process.config
    where = config["listen"]
    database = Database(config["database"], config["password"])
    if not database.is_current():
        message = "is not made yet, or older than this program"
        hint = "run `plc-edge central init`"
        raise ConfigError([Problem("database", "", message, hint=hint)])
    chain = audit.Chain(audit.load_key(Path(config["state"])))
    broker: Worker | None = None
    state = Path(config["state"])
    seal = Seal.load(state)
    engines: Engines | None = None
    if config["broker"] is not None:
        key = accounts.load_key(state)
        alerts: Publication | None = None
        if config["alerts"]:
            alerts = Publication(state, key, seal, process.log)
            engines = Engines(process.runtime)
        broker = Worker(database, config["broker"], key, process.log, alerts)
    any_receiver = config["alert_receivers"] == "any"
    core = Core(database, chain, Checker(), broker, seal, engines, any_receiver)
    tls = serving.certificate("listen", where["tls"])
    listener = serving.listen("listen", where["host"], where["port"])
    server = serving.Server(app.make(core, process.log), listener, tls, MAX_CONNECTIONS)

    def each_second() -> None:
        if server.failed is not None:
            raise RuntimeError("the HTTP server failed") from server.failed
        if broker is not None and broker.error is not None:
            raise RuntimeError("the broker's thread failed") from broker.error

    process.every(1.0, each_second)
    scheme = "https" if tls else "http"
    process.ready(url=f"{scheme}://{where['host']}:{listener.getsockname()[1]}/")

    def close() -> None:
        server.stop()
        if broker is not None:
            broker.close()
        listener.close()
        database.close()

    return close
