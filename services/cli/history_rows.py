"""Rows of ``plc-edge history``: asked for in portions that the historian bears, written as CSV,
JSON lines or Parquet. All formats have the same columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import orjson

from services.runtime import moments

# One question covers so many steps, or so much time of single values.
PORTION_STEPS, PORTION_MS = 2_000, 3_600_000
WRITTEN_ROWS = 50_000

Row = tuple[Any, ...]
Ask = Callable[..., Any]

_NAMED = ("time", "plc", "group", "machine", "field", "unit")
RAW_COLUMNS = (*_NAMED, "value", "quality", "reason")
STEP_COLUMNS = (
    *_NAMED, "mean", "min", "max", "last", "count", "known_s", "increase", "edges",
)  # fmt: skip
"""``mean``: over the known time (of a BOOL how much of it was true), else of the values."""
_REAL = ("mean", "min", "max", "known_s", "increase")
_QUALITY = ("good", "uncertain", "bad")


@dataclass(frozen=True, slots=True)
class Series:
    """One that has been recorded."""

    locatario: str
    plc: str
    group: str
    machine: str
    field: str
    kind: str
    type: str
    unit: str
    first_ms: int
    last_ms: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Series:
        """Of the historian's answer to ``series``."""
        more = (answer[k] for k in ("kind", "type", "unit", "first_ms", "last_ms"))
        return cls(*answer["series"], *more)

    @property
    def identity(self) -> tuple[str, ...]:
        """As the historian is asked."""
        return self.locatario, self.plc, self.group, self.machine, self.field

    @property
    def named(self) -> Row:
        """The columns that say what a value is of."""
        return self.plc, self.group, self.machine, self.field, self.unit


def raw_rows(ask: Ask, series: Sequence[Series], begin_ms: int, end_ms: int) -> Iterator[Row]:
    """Every value of each series, by hours."""
    first_ms = min(s.first_ms for s in series)
    last_ms = max(s.last_ms for s in series)
    at_ms, end_ms = max(begin_ms, first_ms), min(end_ms, last_ms + 1)
    while at_ms < end_ms:
        until_ms = min(end_ms, at_ms + PORTION_MS)
        for one in series:
            yield from _portion(ask, one, at_ms, until_ms)
        at_ms = until_ms


def _portion(ask: Ask, one: Series, at_ms: int, until_ms: int) -> Iterator[Row]:
    while at_ms < until_ms:
        asked = [list(one.identity)]
        (found,) = ask("raw", series=asked, begin_ms=at_ms, end_ms=until_ms)["series"]
        times = found["ts_ms"]
        # Values of one millisecond stay together: the rest of them comes with the next answer.
        whole = not found["cut"] or times[0] == times[-1]
        for i, ts in enumerate(times):
            if whole or ts < times[-1]:
                quality = _QUALITY[found["quality"][i]]
                reason = found["reasons"].get(str(i), "")
                yield (ts, *one.named, found["values"][i], quality, reason)
        if not found["cut"]:
            return
        at_ms = times[-1] + 1 if whole else times[-1]


def step_rows(
    ask: Ask, series: Sequence[Series], begin_ms: int, end_ms: int, step_ms: int
) -> Iterator[Row]:
    """Roll-ups."""
    identities = [list(s.identity) for s in series]
    while begin_ms < end_ms:
        until_ms = min(end_ms, begin_ms + PORTION_STEPS * step_ms)
        ends = {"begin_ms": begin_ms, "end_ms": until_ms, "step_ms": step_ms}
        found = ask("rolled", series=identities, **ends)["series"]
        for i, ts in enumerate(found[0]["begin_ms"] if found else ()):
            for one, r in zip(series, found, strict=True):
                mean = r["mean"][i] if r["weighted"][i] is None else r["weighted"][i]
                counts = one.kind == "counter"
                yield (
                    ts, *one.named, mean, r["low"][i], r["high"][i], r["last"][i], r["count"][i],
                    r["known_ms"][i] / 1_000, r["increase"][i] if counts else None,
                    r["edges"][i] if one.kind == "bool" else None,
                )  # fmt: skip
        begin_ms = until_ms


def csv_writer(rows: Iterable[Row], columns: Sequence[str], _series: object, file: BinaryIO) -> int:
    """Times as ISO 8601 with this PC's offset."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(columns)
    count = 0
    for row in rows:
        table.writerow((moments.iso(row[0]), *row[1:]))
        count += 1
    text.detach()
    return count


def json_writer(
    rows: Iterable[Row], columns: Sequence[str], _series: object, file: BinaryIO
) -> int:
    """One object a line; ``time`` is ISO 8601, what is not known is null."""
    count = 0
    for row in rows:
        count += 1
        said = dict(zip(columns, (moments.iso(row[0]), *row[1:]), strict=True))
        file.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
    return count


def parquet_writer(
    rows: Iterable[Row], columns: Sequence[str], series: Sequence[Series], file: BinaryIO
) -> int:
    """``time`` in ms, UTC. Values are numbers, or booleans, or of mixed series text. Raises
    ImportError where pyarrow is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"number" if s.kind == "counter" else s.kind for s in series}
    value = {"number": pa.float64(), "bool": pa.bool_()}.get("".join(kinds), pa.string())
    text = pa.dictionary(pa.int32(), pa.string())
    last = value if value != pa.bool_() else pa.float64()
    types = {
        "time": pa.timestamp("ms", "UTC"), "value": value, "last": last, "count": pa.int64(),
        "edges": pa.int64(), **dict.fromkeys(_REAL, pa.float64()),
    }  # fmt: skip
    schema = pa.schema([(c, types.get(c, text)) for c in columns])
    count, left = 0, iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while portion := list(islice(left, WRITTEN_ROWS)):
            arrays = [
                pa.array(_fitting(cells, types.get(name, text), pa), types.get(name, text))
                for name, cells in zip(columns, zip(*portion, strict=True), strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(portion)
    return count


def _fitting(cells: Sequence[Any], kind: Any, pa: Any) -> Sequence[Any]:
    if kind == pa.string():
        return [None if c is None else str(c) for c in cells]
    if kind == pa.float64():
        return [None if c is None else float(c) for c in cells]
    return cells
