"""The meter as a process: fed by the broker, under an account of its own that only reads data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from services.consumer.durable import Durable
from services.consumer.mqtt import MqttIntake
from services.control_plane import audit
from services.control_plane.broker import accounts
from services.control_plane.db import Database
from services.meter.counted import Counted
from services.meter.meter import Meter
from services.runtime.errors import ConfigError, Problem
from services.runtime.files import write_whole
from services.runtime.process import Process


def setup(process: Process) -> Callable[[], None]:
    """Opens the database and takes what the broker has; returns ``close``."""
    config = process.config
    database = Database(config["database"], config["password"])
    if not database.is_current():
        message = "is not made yet, or older than this program"
        hint = "run `plc-edge central init`"
        raise ConfigError([Problem("database", "", message, hint=hint)])
    state = Path(config["state"])
    chain = audit.Chain(audit.load_key(state))
    password = state / "secrets" / "meter.password"
    password.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(password, accounts.meter_password(accounts.load_key(state)).encode())
    # The control plane makes the account at the broker; until then it is refused, and tries again.
    own = {"username": accounts.METER, "client_id": accounts.METER}
    config["mqtt"] = {**config["broker"], **own, "password": {"file": str(password)}}
    meter = Meter(database, chain, process.event)
    source = partial(MqttIntake, topics=accounts.DATA, others=True)
    close_rows = Durable(process, meter, source, Counted).open()
    process.every(1.0, meter.tick)
    process.ready()

    def close() -> None:
        close_rows()
        database.close()

    return close
