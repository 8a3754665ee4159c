"""Everything that the control plane remembers, in one file: its tables and its keys.

The file is the same whatever the database is (gzip of JSON lines, read through SQLAlchemy), so that
one way serves both, needs no program of the database's own version, and moves a centre from SQLite
to PostgreSQL. It is read in one transaction that sees one state, beside a control plane that goes
on writing. Its last line carries the SHA-256 of all before it: what is cut off or changed is seen
before anything is taken from it.

Tables are taken as the database has them, not as this program maps them: a backup can be made
before an upgrade, and restored after it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, LargeBinary, MetaData, Table, select

from services.control_plane.db import Database
from services.control_plane.tables import Base
from services.runtime.clock import now_ms
from services.runtime.errors import PlcEdgeError

# Of the state folder; none of them may be left out, or what is restored opens nothing.
KEYS = ("*.key", "box-ca.*")
FORMAT, VERSION = "plc-edge central backup", 1
_ROWS = 1_000
_LINE_MAX_BYTES = 64 * 2**20

Line = list[Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds."""

    schema: str
    made_ms: int
    keys: list[str]
    tables: int
    rows: int


def is_key(name: str) -> bool:
    """Whether a name is that of a key file, and of nothing elsewhere."""
    return Path(name).name == name and any(Path(name).match(pattern) for pattern in KEYS)


def keys(state: Path) -> list[Path]:
    """The key files that there are."""
    return sorted({f for pattern in KEYS for f in state.glob(pattern) if f.is_file()})


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """Writes a file that is there only when all of it is, readable by its owner alone."""
    part = file.with_name(f"{file.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        os.fchmod(fd, 0o600)  # a part that was left may be anybody's
        yield out
        out.flush()
        os.fsync(fd)
    part.rename(file)
    sync(file.parent)


def sync(folder: Path) -> None:
    """Makes a folder's names survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- writing ---------------------------------------------------------------------------------


def write(database: Database, state: Path, out: IO[bytes]) -> Summary:
    """Writes the file. Raises PlcEdgeError where there is nothing to keep yet."""
    schema = database.schema()
    if schema is None:
        raise PlcEdgeError("the database is not made yet: there is nothing to back up")
    made_ms, files = now_ms(), keys(state)
    digest, rows = hashlib.sha256(), 0
    with (
        gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=made_ms // 1_000) as packed,
        database.snapshot() as connection,
    ):

        def put(*line: Any) -> None:
            text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            digest.update(text)
            packed.write(text)

        put(FORMAT, VERSION, {"schema": schema, "made_ms": made_ms})
        for file in files:
            put("key", file.name, base64.b64encode(file.read_bytes()).decode())
        tables = reflect(connection)
        for table in tables:
            put("table", table.name, [c.name for c in table.columns])
            for row in _rows(connection, table):
                put("row", *row)
                rows += 1
        put("end", rows, digest.hexdigest())
    return Summary(schema, made_ms, [f.name for f in files], len(tables), rows)


def reflect(connection: Connection) -> list[Table]:
    """The tables that are there and ours, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in Base.metadata.tables)
    return found.sorted_tables


def _rows(connection: Connection, table: Table) -> Iterator[Line]:
    binary = [isinstance(c.type, LargeBinary) for c in table.columns]
    query = select(table).order_by(*table.primary_key.columns)
    for row in connection.execute(query, execution_options={"yield_per": _ROWS}):
        yield [
            base64.b64encode(value).decode() if is_binary and value is not None else value
            for value, is_binary in zip(row, binary, strict=True)
        ]


# -- reading ---------------------------------------------------------------------------------


class Damaged(PlcEdgeError):
    """The file is not as it was written."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the backup is damaged: {why}; nothing was restored")


class Backup:
    """A backup as it is read, line by line: its head and its keys at once, then its rows."""

    def __init__(self, source: IO[bytes]) -> None:
        """``source`` can be read twice: first all of it is checked. Raises Damaged, or PlcEdgeError
        where it is none, or a newer program's.
        """
        head = next(_read(source))
        if head[0] != FORMAT:
            raise PlcEdgeError("this is no backup of `plc-edge central backup`")
        if head[1] != VERSION:
            raise PlcEdgeError(
                f"the backup has format {head[1]}, of a newer plc-edge: restore it with that one"
            )
        source.seek(0)
        for _ in _read(source):
            pass
        source.seek(0)
        self._lines = _read(source)
        next(self._lines)
        self.schema: str = head[2]["schema"]
        self.made_ms: int = head[2]["made_ms"]
        self.keys: dict[str, bytes] = {}
        self._following: Line = next(self._lines)
        while self._following[0] == "key":
            _, name, content = self._following
            if not is_key(name):
                raise PlcEdgeError(f"the backup has a key file that cannot be ours: {name!r}")
            self.keys[name] = base64.b64decode(content)
            self._following = next(self._lines)

    def tables(self) -> Iterator[tuple[str, list[str], Iterator[list[Line]]]]:
        """(name, columns, rows in parts) of each table; take each one's rows before the next."""
        while self._following[0] == "table":
            _, name, columns = self._following
            yield name, columns, self._parts()

    def _parts(self) -> Iterator[list[Line]]:
        part: list[Line] = []
        for line in self._lines:
            if line[0] != "row":
                self._following = line
                break
            part.append(line[1:])
            if len(part) == _ROWS:
                yield part
                part = []
        if part:
            yield part


def _read(source: IO[bytes]) -> Iterator[Line]:
    """Every line, the last one ``end``, which is checked."""
    digest, rows = hashlib.sha256(), 0
    try:
        with gzip.GzipFile(fileobj=source, mode="rb") as packed:
            while text := packed.readline(_LINE_MAX_BYTES):
                line = json.loads(text)
                if line[0] == "end":
                    if line != ["end", rows, digest.hexdigest()]:
                        raise Damaged("its checksum is another one")
                    if packed.read(1):
                        raise Damaged("something follows its end")
                    yield line
                    return
                digest.update(text)
                rows += line[0] == "row"
                yield line
    except (OSError, EOFError, ValueError, LookupError, TypeError, zlib.error) as e:
        raise Damaged(str(e)) from None
    raise Damaged("its end is missing")
