"""The control plane: HTTP in one thread, requests in others, the run loop of every process here."""

from __future__ import annotations

from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path

from services.control_plane import app, audit
from services.control_plane.broker import accounts
from services.control_plane.broker.worker import Worker
from services.control_plane.checking import Checker
from services.control_plane.db import Database
from services.control_plane.fleet import ca
from services.control_plane.fleet.desk import Desk
from services.control_plane.pages import app as pages
from services.control_plane.unit import Core
from services.runtime import serving
from services.runtime.errors import ConfigError, Problem
from services.runtime.process import Process

# Boxes keep a connection each while they wait for a configuration.
MAX_CONNECTIONS = 4_096
# asyncio keeps so much for each TLS connection, 256 KiB unless told: a thousand boxes that say
# nothing took 250 MB. A record of TLS has 16.
TLS_BUFFER_BYTES = 32 * 1_024
# After a restart of the centre all of them come back at once.
BACKLOG = 2_048


def setup(process: Process) -> Callable[[], None]:
    """Opens the database and the HTTP port; returns ``close``."""
    config = process.config
    where = config["listen"]
    database = Database(config["database"], config["password"])
    if not database.is_current():
        message = "is not made yet, or older than this program"
        hint = "run `plc-edge central init`"
        raise ConfigError([Problem("database", "", message, hint=hint)])
    state = Path(config["state"])
    chain = audit.Chain(audit.load_key(state))
    broker: Worker | None = None
    if config["broker"] is not None:
        key = accounts.load_key(state)
        broker = Worker(database, config["broker"], key, process.log)
    fleet = Desk(database, chain, ca.load(state), process.log)
    core = Core(database, chain, Checker(), broker, fleet)
    sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    tls = serving.certificate("listen", where["tls"])
    listener = serving.listen("listen", where["host"], where["port"], BACKLOG)
    boxes = str(ca.certificate_file(state))
    served = pages.make(core, app.make(core, process.log), process.log, config["oidc"])
    server = serving.Server(served, listener, tls, MAX_CONNECTIONS, clients_ca=boxes)

    def each_second() -> None:
        if server.failed is not None:
            raise RuntimeError("the HTTP server failed") from server.failed
        if broker is not None and broker.error is not None:
            raise RuntimeError("the broker's thread failed") from broker.error
        fleet.check()

    process.every(1.0, each_second)
    scheme = "https" if tls else "http"
    process.ready(url=f"{scheme}://{where['host']}:{listener.getsockname()[1]}/")

    def close() -> None:
        server.stop(also=fleet.waiters.close)
        fleet.conductor.close()
        if broker is not None:
            broker.close()
        listener.close()
        database.close()

    return close
