"""Files of any kind, read together into one set of sources."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from services.runtime.files import Unreadable, read
from services.s7.importers import simaticml, tag_tables, text
from services.s7.importers.model import Place, SourceError, SourceProblem, Sources
from services.s7.importers.reading import GUESSED, MAX_BYTES, decode

_Reader = Callable[[bytes, str, Sources], None]
_DECLARES = re.compile(r"(?im)^[^\S\n]*(DATA_BLOCK|TYPE|FUNCTION_BLOCK)\b")


def _text(reader: Callable[[str, str, Sources], None]) -> _Reader:
    def read_text(data: bytes, file: str, into: Sources) -> None:
        content, guessed = decode(data, file, into.encoding)
        if guessed:
            into.notes.append(f"{file}: {GUESSED}")
        try:
            reader(content, file, into)
        except SourceError as e:
            if guessed:
                e.problems[0] = replace(e.problems[0], hint=e.problems[0].hint or GUESSED)
            raise

    return read_text


def _tia(source: str, file: str, into: Sources) -> None:
    text.read(source, file, into, classic=False)


def _step7(source: str, file: str, into: Sources) -> None:
    text.read(source, file, into, classic=True)


_KINDS: dict[str, _Reader] = {
    ".db": _text(_tia),
    ".udt": _text(_tia),
    ".scl": _text(_tia),
    ".awl": _text(_step7),
    ".stl": _text(_step7),
    ".xml": simaticml.read,
    ".xlsx": tag_tables.read_xlsx,
    ".xlsm": tag_tables.read_xlsx,
    ".csv": _text(tag_tables.read_csv),
    ".tsv": _text(tag_tables.read_csv),
    ".json": _text(tag_tables.read_json),
    ".sdf": _text(tag_tables.read_sdf),
    ".asc": _text(tag_tables.read_asc),
    ".seq": _text(tag_tables.read_seq),
    ".dif": tag_tables.refuse_dif,
}


def collect(
    files: Sequence[Path],
    encoding: str | None = None,
    type_bytes: Mapping[str, int] | None = None,
) -> Sources:
    """Reads every file; what is wrong in them stands in ``problems``, all at once.

    ``encoding`` is that of texts that are not Unicode. ``type_bytes``: sizes of types that have no
    source, by name.
    """
    sources = Sources(encoding=encoding)
    sources.type_bytes = {name.lower(): size for name, size in (type_bytes or {}).items()}
    for path in files:
        file = str(path)
        try:
            data = read(path, MAX_BYTES)
        except Unreadable as e:
            sources.problems.append(SourceProblem(Place(file), f"cannot be read: it {e}"))
            continue
        try:
            _reader(path, data)(data, file, sources)
        except SourceError as e:
            sources.problems += e.problems
        except RecursionError:
            message = "structures are nested too deep (S7 allows 8 levels)"
            sources.problems.append(SourceProblem(Place(file), message))
        except csv.Error as e:
            sources.problems.append(SourceProblem(Place(file), f"not a table: {e}"))
    return sources


def _reader(path: Path, data: bytes) -> _Reader:
    """By extension; for others by how the content begins."""
    known = _KINDS.get(path.suffix.lower())
    if known is not None:
        return known
    if data[:2] == b"PK":
        return tag_tables.read_xlsx
    content, _ = decode(data, str(path), "latin-1")
    head = content.lstrip()[:1]
    if head == "<":
        return simaticml.read
    if _DECLARES.search(content):
        return _KINDS[".scl"]
    if head == "{":
        return _KINDS[".json"]
    if content.startswith("126,"):
        return _KINDS[".asc"]
    if head == '"':
        return _KINDS[".sdf"]
    return _KINDS[".csv"]
