"""Messages of one stream as columns, and back.

A message is a flat row: each of its keys is a column, those of ``values`` and ``bad`` too
(``values/temperatura``). What a row does not have is not ``present`` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.historian.shapes import BAD, GOOD, QUALITIES, UNCERTAIN, Bools, Codes, Ints

VALUES, REASONS = "values/", "bad/"
PARTS = ("values", "bad")
KEYS = ("ts", "epoch", "seq")
JOINED = "+joined"
"""Not of the message: nothing is missing since the row before it."""
DAMAGED = "+damaged"
"""Nor this: a part of the message is lost."""
MISSING = object()
"""Where a row has no such key."""
_INT_END = 2**63


class Column(NamedTuple):
    """One key of many messages."""

    values: NDArray[Any]
    """bool, int64, float64, or object: text, arrays, null, and what has several types."""
    present: Bools | None
    """None: in all of them."""

    def pick(self, rows: Any) -> Column:
        """Of these rows."""
        return Column(self.values[rows], None if self.present is None else self.present[rows])

    def has(self, count: int) -> Bools:
        """In which rows it is."""
        return np.ones(count, np.bool_) if self.present is None else self.present


def column(cells: Sequence[Any]) -> Column:
    """Of JSON values; ``MISSING`` where there is none."""
    present = None
    if MISSING in cells:
        present = np.fromiter((c is not MISSING for c in cells), np.bool_, len(cells))
        given = [c for c in cells if c is not MISSING]
        inner = _dense(given)
        values = np.zeros(len(cells), inner.dtype)
        if inner.dtype == object:
            values.fill(None)
        values[present] = inner
        return Column(values, present)
    return Column(_dense(cells), present)


def _dense(cells: Sequence[Any]) -> NDArray[Any]:
    kinds = set(map(type, cells))
    if kinds == {float}:
        return np.array(cells, np.float64)
    if kinds == {bool}:
        return np.array(cells, np.bool_)
    if kinds == {int} and all(-_INT_END <= c < _INT_END for c in (min(cells), max(cells))):
        return np.array(cells, np.int64)
    values = np.empty(len(cells), object)
    for i, cell in enumerate(cells):  # at once, numpy would take lists apart
        values[i] = cell
    return values


def numbers(found: Column) -> Column:
    """Whole numbers and others of one field (its type was changed, or one is past int64) as
    float64; what has text in it as it is.
    """
    if not found.values.dtype.hasobject:
        return found
    cells = found.values if found.present is None else found.values[found.present]
    if not len(cells) or not set(map(type, cells.tolist())) <= {int, float}:
        return found
    values = np.zeros(len(found.values))
    values[found.has(len(values))] = cells.astype(np.float64)
    return Column(values, found.present)


def element(array: Column, at: int) -> Column:
    """One element of arrays."""
    cells = array.values.tolist()
    return column([c[at] if isinstance(c, list) and at < len(c) else MISSING for c in cells])


class Table:
    """Rows of one stream, in any order until ``ordered``."""

    def __init__(
        self, rows: int, names: Iterable[str], load: Callable[[str], Column | None]
    ) -> None:
        self.rows = rows
        self._names = dict.fromkeys(names)
        self._load = load
        self._columns: dict[str, Column | None] = {}

    @classmethod
    def of(cls, messages: Sequence[dict[str, Any]], joined: Sequence[bool]) -> Table:
        """``joined``: see ``JOINED``."""
        sources: dict[str, tuple[Sequence[dict[str, Any]], str]] = {}
        _gather(sources, messages, "", PARTS)
        for part in PARTS:
            inner = [m.get(part, MISSING) for m in messages]
            if not all(isinstance(p, dict) or p is MISSING for p in inner):
                sources[part] = messages, part  # no message of ours, and kept all the same
                continue
            if {} in inner:
                empty: list[dict[str, Any]] = [{part: True} if p == {} else {} for p in inner]
                sources[part] = empty, part
            _gather(sources, [{} if p is MISSING else p for p in inner], f"{part}/")
        flags = Column(np.array(joined, np.bool_), None)

        def load(name: str) -> Column | None:
            if name == JOINED:
                return flags
            rows, key = sources[name]
            return column([row.get(key, MISSING) for row in rows])

        return cls(len(messages), [*sources, JOINED], load)

    @property
    def names(self) -> Iterable[str]:
        """Its columns."""
        return self._names.keys()

    def get(self, name: str) -> Column | None:
        """A column; None where no row has it."""
        if name not in self._columns:
            self._columns[name] = self._load(name) if name in self._names else None
        return self._columns[name]

    def once(self, name: str) -> Column | None:
        """The same, and not kept: of a whole hour all columns at once would not fit in memory."""
        if name in self._columns:
            return self._columns[name]
        return self._load(name) if name in self._names else None

    def ints(self, name: str) -> Ints:
        """One that every row has: ``ts``, ``epoch``, ``seq``."""
        found = self.get(name)
        if found is None:
            return np.zeros(self.rows, np.int64)
        return found.values

    @property
    def joined(self) -> Bools:
        """See ``JOINED``."""
        found = self.get(JOINED)
        return np.zeros(self.rows, np.bool_) if found is None else found.values

    @property
    def quality(self) -> Codes:
        """Of the whole message: 0 good, 1 uncertain, 2 bad."""
        found = self.get("quality")
        if found is None:  # damaged, or never there
            code = UNCERTAIN if "quality" in self._names else GOOD
            return np.full(self.rows, code, np.uint8)
        codes = np.full(self.rows, BAD, np.uint8)
        for code, word in enumerate(QUALITIES):
            codes[found.values == word] = code
        return codes

    def field(self, name: str) -> Column | None:
        """The values of a field, or of an element of an array (``name.0``)."""
        found = self.get(VALUES + name)
        if found is not None:
            return found
        head, _, number = name.rpartition(".")
        if not head or not number.isdigit():
            return None
        array = self.field(head)
        if array is None or array.values.dtype != object:
            return None
        return element(array, int(number))

    def reasons(self, name: str) -> NDArray[Any]:
        """Why a field (or all, ``"*"``) is absent or doubtful, by row; "" where nothing is said."""
        found = self.get(REASONS + name)
        if found is None:
            return np.full(self.rows, "", object)
        return np.where(found.has(self.rows), found.values, "").astype(object)

    def pick(self, rows: Any) -> Table:
        """These rows, in that order."""

        def load(name: str) -> Column | None:
            found = self.once(name)
            return None if found is None else found.pick(rows)

        return Table(len(np.arange(self.rows)[rows]), self.names, load)

    def whole(self) -> Table:
        """The same rows, of which nothing has to be read any more."""
        columns = {name: c for name in self.names if (c := self.get(name)) is not None}
        return Table(self.rows, columns, columns.get)

    def messages(self) -> list[dict[str, Any]]:
        """The JSON objects again, of those rows that are whole."""
        out: list[dict[str, Any]] = [{} for _ in range(self.rows)]
        whole = {part for part in PARTS if (VALUES, REASONS)[PARTS.index(part)]}
        lost = self.get(DAMAGED)
        for name in self.names:
            found = self.get(name)
            if name in (JOINED, DAMAGED) or found is None:
                continue
            part, slash, key = name.partition("/")
            cells = found.values.tolist()
            rows = range(self.rows) if found.present is None else np.flatnonzero(found.present)
            if slash and part in whole:
                for i in rows:
                    out[i].setdefault(part, {})[key] = cells[i]
            elif name in PARTS and all(cells[i] is True for i in rows):
                for i in rows:
                    out[i].setdefault(name, {})
            else:
                for i in rows:
                    out[i][name] = cells[i]
        if lost is None:
            return out
        return [m for m, gone in zip(out, lost.has(self.rows), strict=True) if not gone]


def _gather(
    sources: dict[str, tuple[Sequence[dict[str, Any]], str]],
    rows: Sequence[dict[str, Any]],
    prefix: str,
    without: Sequence[str] = (),
) -> None:
    """Says of each key where its cells are. Rows of one record mostly have the same keys."""
    usual = list(rows[0]) if rows else []
    names = dict.fromkeys(usual)
    for row in rows:
        if list(row) != usual:
            names |= dict.fromkeys(row)
    for name in names:
        if name not in without:
            sources[prefix + name] = rows, name


def joined_tables(tables: Sequence[Table]) -> Table:
    """All of their rows, one after the other."""
    if len(tables) == 1:
        return tables[0]
    names = dict.fromkeys(name for t in tables for name in t.names)
    rows = sum(t.rows for t in tables)

    def load(name: str) -> Column | None:
        parts = [(t, t.once(name)) for t in tables]
        kinds = {c.values.dtype for _, c in parts if c is not None}
        if not kinds:
            return None
        kind = kinds.pop() if len(kinds) == 1 else np.dtype(object)
        values = np.zeros(rows, kind)
        mixed = kind.hasobject
        if all(c is not None and c.present is None and c.values.dtype == kind for _, c in parts):
            return Column(np.concatenate([c.values for _, c in parts if c is not None]), None)
        if mixed:
            values.fill(None)
        present, at, whole = np.zeros(rows, np.bool_), 0, True
        for table, held in parts:
            span = slice(at, at + table.rows)
            at += table.rows
            if held is not None:
                # Python's own numbers: in an object column 1 must stay 1, and True True.
                values[span] = _cells(held.values) if mixed else held.values
                present[span] = True if held.present is None else held.present
            whole = whole and held is not None and held.present is None
        return Column(values, None if whole else present)

    return Table(rows, names, load)


def _cells(values: NDArray[Any]) -> NDArray[Any]:
    """As objects; lists among them stay lists."""
    cells = np.empty(len(values), object)
    for i, cell in enumerate(values.tolist()):
        cells[i] = cell
    return cells


def ordered(table: Table) -> Table:
    """By (epoch, seq), each once."""
    epoch, seq = table.ints("epoch"), table.ints("seq")
    if table.rows < 2:
        return table
    later = (epoch[1:] > epoch[:-1]) | ((epoch[1:] == epoch[:-1]) & (seq[1:] > seq[:-1]))
    if later.all():
        return table
    order = np.lexsort((np.arange(table.rows), seq, epoch))
    same = (epoch[order][1:] == epoch[order][:-1]) & (seq[order][1:] == seq[order][:-1])
    return table.pick(order[np.concatenate(([True], ~same))])


def time_order(table: Table) -> tuple[Ints, Bools]:
    """The order of time (of what is ``ordered``), and which rows join to the one before them then:
    where it is another than the sequence's, nothing does.
    """
    ts, joined = table.ints("ts"), table.joined
    order = np.argsort(ts, kind="stable")
    follows = np.zeros(table.rows, np.bool_)
    if table.rows:
        follows[0] = order[0] == 0
        follows[1:] = order[1:] == order[:-1] + 1
    return order, joined[order] & follows


def set_back(table: Table) -> Ints | None:
    """Of what is ``ordered``: the place of each row of ``by_time`` in it; None where it is the
    same.
    """
    ts = table.ints("ts")
    return None if (ts[1:] >= ts[:-1]).all() else np.argsort(ts, kind="stable")


def by_time(table: Table) -> Table:
    """In order of time."""
    ts = table.ints("ts")
    if table.rows < 2 or (ts[1:] >= ts[:-1]).all():
        return table
    order, joined = time_order(table)
    moved = table.pick(order)

    def load(name: str) -> Column | None:
        return Column(joined, None) if name == JOINED else moved.once(name)

    return Table(table.rows, moved.names, load)


def known_quality(table: Table, name: str) -> tuple[Column | None, Codes]:
    """A field's values, and the quality of each: bad where it is absent."""
    found, codes = table.field(name), table.quality
    if found is None:
        return None, np.full(table.rows, BAD, np.uint8)
    if found.present is not None:
        codes = np.where(found.present, codes, BAD).astype(np.uint8)
    return found, codes
