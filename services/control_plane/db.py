"""The centre's database: SQLite beside the configuration, or PostgreSQL by its URL.

One writer at a time, on both: SQLite has it no other way, and on PostgreSQL every change locks the
head of the audit chain first. A control plane writes a few rows a second; what this buys is that
no two changes can pass a quota together, and that the audit has one order.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, make_url, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session

from services.control_plane import scope
from services.control_plane.tables import AuditHead
from services.runtime import secrets
from services.runtime.errors import ConfigError, Problem

BUSY_TIMEOUT_MS = 5_000
# A request that the database does not answer for so long is given up.
STATEMENT_TIMEOUT_MS = 15_000
CONNECT_TIMEOUT_S = 5
# Of which each has a connection while it asks; more wait for one.
POOL_SIZE = 20
POOL_WAIT_S = 10
# A connection that was used a moment ago is taken to be there still.
ASK_AFTER_S = 1.0


class Database:
    """One engine, and who may write through it."""

    def __init__(self, url: str, password: dict[str, str] | None = None) -> None:
        """``url`` as in central.yaml, ``password`` a reference (services/runtime/secrets.py)."""
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        arguments: dict[str, Any]
        if self.is_sqlite:
            arguments = {"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1_000}
        else:
            parsed = parsed.set(drivername="postgresql+psycopg")
            if password is not None:
                parsed = parsed.set(password=secrets.resolve(password))
            options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
            arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "options": options}
        self.engine = create_engine(
            parsed,
            connect_args=arguments,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
            pool_use_lifo=True,
        )
        # On PostgreSQL each statement of a reader sees a state of its own in any case, and BEGIN
        # and ROLLBACK around one or two of them are two more questions to its server.
        self._reading = self.engine
        if not self.is_sqlite:
            self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = threading.Lock()
        self._lock_file: Path | None = None
        if self.is_sqlite:
            self._lock_file = Path(f"{parsed.database}-writer")
            # SQLite would make it readable to all.
            os.close(os.open(str(parsed.database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "checkin", _used)
            event.listen(self.engine, "checkout", _is_alive)

    @contextmanager
    def reading(self, tenant: scope.Tenant) -> Iterator[Session]:
        """A session that sees the rows of that tenant only, and changes none."""
        with Session(self._reading, autoflush=False, info={"tenant": tenant}) as session:
            yield session

    @contextmanager
    def writing(self, tenant: scope.Tenant) -> Iterator[Session]:
        """The one session that may change something now; committed where the block ends well."""
        with self._writer(), Session(self.engine, info={"tenant": tenant}) as session:
            if self.is_sqlite:
                session.connection(execution_options={"begin": "BEGIN IMMEDIATE"})
            else:
                session.execute(select(AuditHead).with_for_update())
            yield session
            session.commit()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees one state of the whole database however long it reads, and holds
        up nobody.
        """
        with self.engine.connect() as connection:
            if not self.is_sqlite:  # where a transaction sees one state in any case
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """The one transaction that may change everything now, the schema too. All or nothing: both
        databases can undo a change of schema.
        """
        with self._writer(), self.engine.connect() as connection:
            connection = connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """SQLite before 3.51.3 can corrupt its file when two connections write or checkpoint at the
        same moment (sqlite.org/wal.html, "WAL-reset bug"), and Debian 12 has 3.40: so a file lock
        keeps even two processes from it, `central init` beside a running centre.
        """
        with self._writing:
            if self._lock_file is None:
                yield
                return
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    # -- the schema ----------------------------------------------------------------------

    def migrate(self) -> bool:
        """Brings the schema to the newest; whether anything had to be done."""
        if self.is_current():
            return False
        with self.changing() as connection:
            upgrade(connection)
        return True

    def schema(self) -> str | None:
        """The schema's revision; None where there is none. Raises ConfigError where it is a newer
        one than this program's.
        """
        with self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and not is_known(found):
            message = f"was made by a newer plc-edge (schema {found})"
            hint = "install that version again, or restore the backup of this one"
            raise ConfigError([Problem("database", "", message, hint=hint)])
        return found

    def is_current(self) -> bool:
        """Whether the schema is this program's; raises ConfigError where it is a newer one."""
        return self.schema() == ScriptDirectory.from_config(_alembic()).get_current_head()

    def close(self) -> None:
        """Closes every connection."""
        with self._writer():
            self.engine.dispose()


def is_known(revision: str) -> bool:
    """Whether this program knows that schema."""
    script = ScriptDirectory.from_config(_alembic())
    return revision in {s.revision for s in script.walk_revisions()}


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Brings the schema there, in the transaction of ``changing``."""
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transactions leave SELECT outside and commit before a change of schema.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        # Durable at each commit: a key that was shown must still work after a power cut.
        "synchronous=FULL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _used(_connection: object, record: Any) -> None:
    record.info["used_s"] = time.monotonic()


def _is_alive(connection: Any, record: Any, _proxy: object) -> None:
    """Raises DisconnectionError, upon which the pool opens another, where PostgreSQL has ended this
    connection. SQLAlchemy's own `pool_pre_ping` asks at every use, and asking was a tenth of what a
    box's poll cost.
    """
    if time.monotonic() - record.info.get("used_s", 0.0) < ASK_AFTER_S:
        return
    try:
        connection.execute("")
        connection.rollback()
    except connection.OperationalError as e:
        raise DisconnectionError from e


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
