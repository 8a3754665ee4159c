"""A backup put back: into an empty database, or with ``force`` over what is there.

The rows go in within one transaction, and the keys lie beside the key files (``<state>/restoring``)
before it is committed. Whether it was is told by the database itself: its audit ends where the
restored one does, or not. So whoever comes next after a ``kill -9`` (``settle``: every command of
the centre, and the control plane before anything else) either finishes it or forgets it.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO

from sqlalchemy import (
    JSON,
    Connection,
    Integer,
    LargeBinary,
    Table,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.orm import Session

from services.control_plane import audit, db
from services.control_plane.backup import Backup, Summary, reflect, sync
from services.control_plane.broker import accounts
from services.control_plane.db import Database
from services.control_plane.identity import BROKER, OPERATOR
from services.control_plane.tables import AuditHead, Base, Credential, Secret
from services.runtime.errors import PlcEdgeError
from services.runtime.files import write_whole

WHO = "plc-edge central restore"
STAGED, HEAD = "restoring", "head"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and what about it a person should know."""

    backup: Summary
    warnings: list[str]


def restore(database: Database, state: Path, source: IO[bytes], *, force: bool) -> Restored:
    """Puts a backup back; the control plane must not run. Raises PlcEdgeError, with nothing
    changed, where the file is damaged, a newer program's, or does not fit its keys, and without
    ``force`` also where it would overwrite anything.
    """
    backup = Backup(source)
    if not db.is_known(backup.schema):
        raise PlcEdgeError(
            f"the backup was made by a newer plc-edge (schema {backup.schema}): install that"
            " version, or a newer one"
        )
    with _alone(state):
        _settle(database, state)
        if not force:
            _refuse_to_overwrite(database, state, backup)
        with database.changing() as connection:
            count = _fill(database, connection, backup)
            db.upgrade(connection)
            with Session(connection, info={"tenant": None}) as session:
                warnings = _judge(session, backup, force=force)
                chain = audit.Chain(bytes.fromhex(backup.keys["audit.key"].decode()))
                said = {"made_ms": backup.made_ms, "schema": backup.schema}
                chain.append(session, WHO, OPERATOR, None, "database.restore", "/", None, said)
                head = _head(session)
            _stage(state, backup, head)
        _settle(database, state)
    tables, rows = count
    names = sorted(backup.keys)
    return Restored(Summary(backup.schema, backup.made_ms, names, tables, rows), warnings)


def _refuse_to_overwrite(database: Database, state: Path, backup: Backup) -> None:
    if database.schema() is not None:
        with database.snapshot() as connection:
            tables = {t.name: t for t in reflect(connection)}
            count = {
                name: connection.scalar(select(func.count()).select_from(tables[name]))
                for name in ("tenants", "audit")
            }
        raise PlcEdgeError(
            f"the database is not empty ({count['tenants']} tenants, {count['audit']} rows of"
            " audit): --force replaces all of it"
        )
    for name, content in backup.keys.items():
        file = state / name
        if file.exists() and file.read_bytes() != content:
            raise PlcEdgeError(f"{file} is another key than the backup's: --force replaces it")


def _fill(database: Database, connection: Connection, backup: Backup) -> tuple[int, int]:
    """Makes the backup's schema and puts its rows in; how many tables and rows."""
    if not database.is_sqlite:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    Base.metadata.drop_all(connection)
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    db.upgrade(connection, backup.schema)
    tables = {t.name: t for t in reflect(connection)}
    for table in tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True
    count = rows = 0
    for name, columns, parts in backup.tables():
        if name not in tables:
            raise PlcEdgeError(f"the backup has a table that its schema has not: {name}")
        table = tables[name]
        binary = {c for c in columns if isinstance(table.columns[c].type, LargeBinary)}
        connection.execute(table.delete())  # what the migrations themselves put in
        for part in parts:
            made = [dict(zip(columns, row, strict=True)) for row in part]
            for row, key in product(made, binary):
                if row[key] is not None:
                    row[key] = base64.b64decode(row[key])
            connection.execute(insert(table), made)
            rows += len(made)
        count += 1
        if not database.is_sqlite:
            _count_on(connection, table)
    return count, rows


def _count_on(connection: Connection, table: Table) -> None:
    """PostgreSQL counts ids up apart from the rows."""
    (key, *more) = table.primary_key.columns
    if more or not isinstance(key.type, Integer):
        return
    named = {"table": table.name, "key": key.name}
    sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :key)"), named)
    if sequence is not None:
        highest = connection.scalar(select(func.max(key)))
        next_ = {"sequence": sequence, "next": (highest or 0) + 1}
        connection.execute(text("SELECT setval(:sequence, :next, false)"), next_)


def _judge(session: Session, backup: Backup, *, force: bool) -> list[str]:
    """Whether the keys are those of the rows. Without ``force`` it refuses an audit that is not
    whole: with another key none of it is.
    """
    try:
        chain = audit.Chain(bytes.fromhex(backup.keys["audit.key"].decode()))
    except (KeyError, ValueError):
        raise PlcEdgeError("the backup has no usable audit.key: nothing was restored") from None
    warnings = list(chain.faults(session))
    if warnings and not force:
        raise PlcEdgeError(
            f"the audit does not fit the backup's audit.key: {warnings[0]}; nothing was restored"
            " (--force restores it as it is)"
        )
    query = (
        select(Secret)
        .join(Credential, Credential.id == Secret.credential_id)
        .where(Credential.kind == BROKER, Credential.revoked_ms.is_(None))
    )
    secrets = session.scalars(query).all()
    key = bytes.fromhex(backup.keys.get("broker.key", b"").decode())
    lost = sum(not accounts.fits(key, secret) for secret in secrets)
    if lost:
        warnings.append(
            f"{lost} of {len(secrets)} broker accounts do not fit the backup's broker.key: rotate"
            " their credentials if the broker has lost them"
        )
    return warnings


def _head(session: Session) -> str:
    head = session.get_one(AuditHead, audit.HEAD_ID)
    return f"{head.seq}:{head.mac}"


# -- the keys --------------------------------------------------------------------------------


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One restore at a time, and nobody who settles it meanwhile."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _stage(state: Path, backup: Backup, head: str) -> None:
    new = state / f"{STAGED}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    for name, content in backup.keys.items():
        write_whole(new / name, content)
    write_whole(new / HEAD, head.encode())
    sync(new)
    new.rename(state / STAGED)
    sync(state)


def settle(database: Database, state: Path) -> None:
    """Finishes, or forgets, a restore that was killed. Costs a look at a folder where none was."""
    if (state / STAGED).exists():
        with _alone(state):
            _settle(database, state)


def _settle(database: Database, state: Path) -> None:
    staged = state / STAGED
    if not staged.exists():
        return
    if _committed(database, staged):
        _finish(state, staged)
    shutil.rmtree(staged)


def _finish(state: Path, staged: Path) -> None:
    for file in sorted(f for f in staged.iterdir() if f.name != HEAD):
        file.replace(state / file.name)
    sync(state)
    (staged / HEAD).unlink()


def _committed(database: Database, staged: Path) -> bool:
    if not (staged / HEAD).exists() or not database.is_current():
        return False
    with database.reading(None) as session:
        return session.get(AuditHead, audit.HEAD_ID) is not None and (
            _head(session) == (staged / HEAD).read_text()
        )
