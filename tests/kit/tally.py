"""The smallest consumer with a database of its own: counts and adds up what it takes.

``python -P -m tests.kit.tally --config FILE.json``; its configuration: ``database`` (a path),
``window``, ``commit_s``, ``refuse`` (so many commits fail first, as on a full disk), ``away`` (so
many attempts to begin fail, at the start and after each such commit, as where a database is away),
and ``mqtt`` where it is fed by a broker.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from bus.frames import Heartbeat
from services.consumer.durable import Durable
from services.consumer.mqtt import MqttIntake
from services.consumer.row import Row
from services.consumer.seen import Seen
from services.runtime.errors import Unavailable
from services.runtime.process import Process, main

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (id INTEGER PRIMARY KEY, packed BLOB);
CREATE TABLE IF NOT EXISTS seen (plc TEXT, epoch INTEGER, seq INTEGER, kind INTEGER, times INTEGER,
                                 PRIMARY KEY (plc, epoch, seq, kind));
CREATE TABLE IF NOT EXISTS total (id INTEGER PRIMARY KEY, rows INTEGER, sum INTEGER);
CREATE TABLE IF NOT EXISTS wrong (what TEXT);
INSERT OR IGNORE INTO total VALUES (0, 0, 0);
"""


class Tally:
    """Adds up ``n`` of each message."""

    target = "a tally"

    def __init__(self, config: dict[str, Any]) -> None:
        self.window: int = config["window"]
        self.commit_s: float = config["commit_s"]
        self._refuse: int = config["refuse"]
        self._away_each: int = config.get("away", 0)
        self._away = self._away_each
        self._db = sqlite3.connect(config["database"])
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)
        self._newest: dict[str, tuple[int, int]] = {}

    def begin(self) -> bytes:
        """Rolls back; its position."""
        if self._away:
            self._away -= 1
            raise Unavailable("away", "the tally is away")
        self._db.rollback()
        self._newest = {}
        row = self._db.execute("SELECT packed FROM position").fetchone()
        return row[0] if row else b""

    def take(self, rows: Sequence[Row]) -> None:
        """Each changes the sums, inside the transaction that ``commit`` ends."""
        for row in rows:
            key = (row.plc, row.epoch, row.seq)
            if key[1:] <= self._newest.get(row.plc, (0, 0)):
                self._db.execute("INSERT INTO wrong VALUES (?)", (f"{key} out of order",))
            self._newest[row.plc] = key[1:]
            self._db.execute(
                "INSERT INTO seen VALUES (?,?,?,?,1) ON CONFLICT DO UPDATE SET times=times+1",
                (*key, row.kind),
            )
            n = orjson.loads(row.body).get("n", 0)
            self._db.execute("UPDATE total SET rows = rows + 1, sum = sum + ?", (n,))

    def commit(self, position: bytes) -> None:
        """All of it, with the position."""
        if self._refuse:
            self._refuse -= 1
            self._away = self._away_each
            raise Unavailable("disk_full", "no room for the tally")
        self._db.execute("INSERT OR REPLACE INTO position VALUES (0, ?)", (position,))
        self._db.commit()

    def beat(self, beat: Heartbeat) -> None:
        """Nothing to count."""


def setup(process: Process) -> Callable[[], None]:
    """Joins it with the store."""
    tally = Tally(process.config)
    if "mqtt" in process.config:
        close = Durable(process, tally, MqttIntake, Seen).open()
    else:
        close = Durable(process, tally).open()
    process.ready()
    return close


if __name__ == "__main__":
    main("tally", setup)
