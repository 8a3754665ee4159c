"""The control plane: HTTP in one thread, requests in others, the run loop of every process here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.control_plane import app, audit
from services.control_plane.checking import Checker
from services.control_plane.db import Database
from services.control_plane.outside import targets as outside
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
    checker = Checker()
    broker, targets = outside.make(config, database, checker, process.log)
    core = Core(database, chain, checker, broker, targets)
    tls = serving.certificate("listen", where["tls"])
    listener = serving.listen("listen", where["host"], where["port"])
    server = serving.Server(app.make(core, process.log), listener, tls, MAX_CONNECTIONS)

    def each_second() -> None:
        if server.failed is not None:
            raise RuntimeError("the HTTP server failed") from server.failed
        for name, worker in targets.items():
            if worker.error is not None:
                raise RuntimeError(f"the thread of {name} failed") from worker.error

    process.every(1.0, each_second)
    scheme = "https" if tls else "http"
    process.ready(url=f"{scheme}://{where['host']}:{listener.getsockname()[1]}/")

    def close() -> None:
        server.stop()
        for worker in targets.values():
            worker.end()
        for worker in targets.values():
            worker.close()
        listener.close()
        database.close()

    return close
