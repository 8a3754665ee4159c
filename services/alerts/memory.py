"""``alerts.db``: the engine's state, how far it has come, its history and who must still be told.

All of it changes in one transaction, so that a restart finds state, position and notifications of
one moment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgpack
import orjson

from services.consumer.database import FULL, connect_anew_if_damaged
from services.runtime.errors import Unavailable
from services.runtime.failpoints import hit

HISTORY_ROWS = 100_000
HISTORY_MS = 90 * 86_400_000
# Of one receiver; who was away for longer is told of the newest.
QUEUE_ROWS = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plc (locatario TEXT, name TEXT, state BLOB,
                                PRIMARY KEY (locatario, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (number INTEGER PRIMARY KEY, at_ms INTEGER, body BLOB);
CREATE TABLE IF NOT EXISTS queue (receiver TEXT, number INTEGER, body BLOB,
                                  PRIMARY KEY (receiver, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS board (receiver TEXT, topic TEXT, number INTEGER, body BLOB,
                                  shown INTEGER, PRIMARY KEY (receiver, topic)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS board_unshown ON board (receiver, number) WHERE NOT shown;
CREATE TABLE IF NOT EXISTS routing (kind TEXT, key BLOB, state BLOB,
                                    PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


@dataclass(slots=True)
class Change:
    """What one transaction adds."""

    head: Mapping[str, Any]
    boxes: Sequence[Any]
    plcs: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """A PLC's state; None where it is gone."""
    history: Sequence[tuple[int, int, bytes]] = ()
    """(number, when it was learnt, JSON)."""
    queue: Sequence[tuple[str, int, bytes]] = ()
    """(receiver, number, JSON)."""
    routing: Iterable[tuple[str, Any, Any]] = ()
    """(kind, key, state) of its parts; None where one is gone."""
    board: Sequence[tuple[str, str, int, bytes]] = ()
    """(receiver, topic, number, JSON): what stands there from now on; b"": nothing."""
    position: bytes | None = None
    """None: as it was."""


class Memory:
    """The file; ``on_damage(path, why)`` is told of one that was put aside."""

    def __init__(self, path: Path, on_damage: Callable[[Path, str], None]) -> None:
        self._db = connect_anew_if_damaged(path, _SCHEMA, self._look, on_damage)

    def _look(self, db: apsw.Connection) -> None:
        """Takes it up."""
        self._db = db
        self.state()
        born = self._meta("born")
        if born is None:
            born = os.urandom(4).hex().encode()
            self._put("born", born)
        self.born = born.decode()
        """Part of every id: numbers begin anew with a new file."""

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _meta(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _put(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, value))

    # -- state ----------------------------------------------------------------------------------

    def position(self) -> bytes:
        """Of the last commit; b"" before the first."""
        return self._meta("position") or b""

    def state(self) -> dict[str, Any] | None:
        """What ``Engine.restore`` takes; None before the first commit."""
        head = self._meta("head")
        if head is None:
            return None
        plcs = [msgpack.unpackb(s) for (s,) in self._db.execute("SELECT state FROM plc")]
        return {**msgpack.unpackb(head), "plcs": plcs}

    def routing(self) -> list[tuple[str, Any, Any]]:
        """What ``Routing.restore`` takes."""
        rows = self._db.execute("SELECT kind, key, state FROM routing")
        return [(kind, msgpack.unpackb(key), msgpack.unpackb(state)) for kind, key, state in rows]

    def save(self, change: Change) -> None:
        """All of it, or nothing. Raises Unavailable where the disk does not take it."""
        try:
            with self._db:
                self._save(change)
                hit("alerts.saving")
        except FULL as e:
            raise Unavailable("disk_full", f"alerts.db cannot be written: {e}") from None

    def _save(self, change: Change) -> None:
        self._put("head", msgpack.packb({**change.head, "boxes": change.boxes}))
        for (locatario, name), state in change.plcs.items():
            if state is None:
                sql = "DELETE FROM plc WHERE (locatario, name) = (?,?)"
                self._db.execute(sql, (locatario, name))
            else:
                values = (locatario, name, msgpack.packb(state))
                self._db.execute("INSERT OR REPLACE INTO plc VALUES (?,?,?)", values)
        for kind, key, state in change.routing:
            packed = msgpack.packb(key)
            if state is None:
                self._db.execute("DELETE FROM routing WHERE (kind, key) = (?,?)", (kind, packed))
            else:
                values = (kind, packed, msgpack.packb(state))
                self._db.execute("INSERT OR REPLACE INTO routing VALUES (?,?,?)", values)
        self._db.executemany("INSERT INTO history VALUES (?,?,?)", change.history)
        self._db.executemany("INSERT INTO queue VALUES (?,?,?)", change.queue)
        self._db.executemany("INSERT OR REPLACE INTO board VALUES (?,?,?,?,0)", change.board)
        if change.position is not None:
            self._put("position", change.position)

    # -- history --------------------------------------------------------------------------------

    def history(
        self, count: int, rule: str = "", plc: str = "", before: int | None = None
    ) -> list[Any]:
        """The last ones, newest first; of one rule or PLC, where they are named; with a number
        less than ``before``.
        """
        wanted = [(key, value) for key, value in (("rule", rule), ("plc_id", plc)) if value]
        where = "".join(f" AND json_extract(CAST(body AS TEXT), '$.{k}') = ?" for k, _ in wanted)
        sql = f"SELECT body FROM history WHERE number < ?{where} ORDER BY number DESC LIMIT ?"
        end = 2**62 if before is None else before
        rows = self._db.execute(sql, (end, *(value for _, value in wanted), count))
        return [orjson.loads(body) for (body,) in rows]

    def touching(self, begin_ms: int, end_ms: int, limit: int) -> list[Any]:
        """Transitions, oldest first, of alarms that were there at some time of a range: those that
        came in it, and ends of what had begun by then. An event is never older than its arrival.
        """
        began = "json_extract(CAST(body AS TEXT), '$.began')"
        ts = "json_extract(CAST(body AS TEXT), '$.ts')"
        sql = (
            f"SELECT body FROM history WHERE at_ms >= ? AND coalesce({began}, {ts}) <= ?"
            " ORDER BY number LIMIT ?"
        )
        rows = self._db.execute(sql, (begin_ms, end_ms, limit))
        return [orjson.loads(body) for (body,) in rows]

    def prune(self, now_ms: int, receivers: Iterable[str]) -> dict[str, int]:
        """Forgets history that is too old or too much, and notifications of nobody; returns how
        many each receiver will not be told of, having been away for too long.
        """
        dropped: dict[str, int] = {}
        names = list(receivers)
        with contextlib.suppress(*FULL), self._db:
            self._db.execute(
                "DELETE FROM history WHERE at_ms < ? OR number <="
                " (SELECT max(number) FROM history) - ?",
                (now_ms - HISTORY_MS, HISTORY_ROWS),
            )
            marks = ",".join("?" * len(names))
            for table in ("queue", "board"):
                self._db.execute(f"DELETE FROM {table} WHERE receiver NOT IN ({marks})", names)
            for name in names:
                if (excess := self.waiting(name) - QUEUE_ROWS) > 0:
                    self._db.execute(
                        "DELETE FROM queue WHERE receiver = ? AND number IN (SELECT number FROM"
                        " queue WHERE receiver = ? ORDER BY number LIMIT ?)",
                        (name, name, excess),
                    )
                    dropped[name] = excess
        return dropped

    # -- the queue ------------------------------------------------------------------------------

    def waiting(self, receiver: str) -> int:
        """How many notifications wait for a receiver."""
        sql = "SELECT count(*) FROM queue WHERE receiver = ?"
        return int(self._db.execute(sql, (receiver,)).get)

    def next(self, receiver: str) -> tuple[int, bytes] | None:
        """The oldest that waits: (number, JSON)."""
        sql = "SELECT number, body FROM queue WHERE receiver = ? ORDER BY number LIMIT 1"
        return self._db.execute(sql, (receiver,)).fetchone()

    def told(self, receiver: str, number: int) -> bool:
        """It need not be sent again; False where that could not be written: then it is."""
        try:
            sql = "DELETE FROM queue WHERE (receiver, number) = (?,?)"
            self._db.execute(sql, (receiver, number))
        except FULL:
            return False
        return True

    # -- boards ---------------------------------------------------------------------------------

    def board(self, receiver: str, *, unshown: bool = False) -> list[tuple[str, int, bytes]]:
        """(topic, number, JSON), in order of the numbers; only of what does not stand there yet,
        where that is asked.
        """
        also = "AND NOT shown " if unshown else ""
        sql = f"SELECT topic, number, body FROM board WHERE receiver = ? {also}ORDER BY number"
        return list(self._db.execute(sql, (receiver,)))

    def board_body(self, receiver: str, topic: str) -> bytes:
        """The JSON; b"" where nothing is shown."""
        sql = "SELECT body FROM board WHERE (receiver, topic) = (?,?)"
        row = self._db.execute(sql, (receiver, topic)).fetchone()
        return row[0] if row else b""

    def shown(self, receiver: str, topic: str, number: int) -> None:
        """It stands there. What cannot be written is shown once more after a restart."""
        with contextlib.suppress(*FULL):
            sql = "UPDATE board SET shown = 1 WHERE (receiver, topic, number) = (?,?,?)"
            self._db.execute(sql, (receiver, topic, number))
            sql = "DELETE FROM board WHERE (receiver, topic) = (?,?) AND shown AND body = x''"
            self._db.execute(sql, (receiver, topic))
