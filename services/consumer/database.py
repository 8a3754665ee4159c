"""The file of a consumer that keeps a database of its own: opened the same way by all of them, and
put aside where it is damaged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import apsw

# What damage may raise, also out of what is decoded from a row.
DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, ValueError)
# What a disk without room may raise.
FULL = (apsw.FullError, apsw.IOError, apsw.CantOpenError)


def connect(
    path: Path, schema: str, look: Callable[[apsw.Connection], None], *, exclusive: bool
) -> apsw.Connection:
    """Opens it, made where it is not there. ``look`` reads what must be there, and may raise one of
    DAMAGE. ``exclusive``: no other process reads it.
    """
    db = apsw.Connection(str(path))
    try:
        if exclusive:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        # The store does not give again what it has a receipt for: a power cut takes no commit.
        db.execute("PRAGMA synchronous=FULL")
        db.execute(schema)
        look(db)
    except Exception:  # its lock would keep the next attempt from it
        with contextlib.suppress(apsw.Error):
            db.close()
        raise
    return db


def connect_anew_if_damaged(
    path: Path,
    schema: str,
    look: Callable[[apsw.Connection], None],
    on_damage: Callable[[Path, str], None],
) -> apsw.Connection:
    """The same, exclusive; a damaged one is put aside, ``on_damage(where it lies, why)`` is told,
    and an empty one takes its place.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return connect(path, schema, look, exclusive=True)
    except DAMAGE as e:
        on_damage(put_aside(path), str(e))
        return connect(path, schema, look, exclusive=True)


def put_aside(path: Path) -> Path:
    """Renames a closed file and what SQLite keeps beside it to ``….damaged``; where it lies."""
    aside = path.with_suffix(".damaged")
    for suffix in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    return aside
