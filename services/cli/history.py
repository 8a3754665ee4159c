"""``plc-edge history``: what the box remembers of values: a table, CSV, JSON or Parquet."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.table import Table

from bus.sockets import Bus
from services.cli.asker import Asker
from services.cli.common import ConfigOption, console, error_console, fail, load_site, time_range
from services.cli.history_rows import (
    RAW_COLUMNS,
    STEP_COLUMNS,
    Row,
    Series,
    csv_writer,
    json_writer,
    parquet_writer,
    raw_rows,
    step_rows,
)
from services.runtime import moments, oee_rules, units
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

ANSWER_S = 10.0
MAX_SERIES = 20
# A table is looked at: so many steps of its own choice, and so many rows at most.
TABLE_STEPS, TABLE_ROWS = 40, 500
# Of so long it is also said what is not known: that reads every message.
WHY_MS = 24 * 3_600_000
WHY_SHOWN = 10

_PLACE = ("plc", "group", "machine", "field", "unit")
Ask = Callable[..., Any]


class Format(enum.StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(history)


def history(
    plc: Annotated[
        str, typer.Argument(metavar="[PLC]", help="The PLC's id; none: lists all that there is.")
    ] = "",
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD]...", help="Its fields, `*` for any letters; none: lists them."
        ),
    ] = None,
    begin: Annotated[
        str, typer.Option("--from", help="`2026-11-30 14:30`, `-2h`, `yesterday`, `06:00` …")
    ] = "-1h",
    end: Annotated[str, typer.Option("--to", help="The same.")] = "now",
    step: Annotated[
        str,
        typer.Option(
            help="`raw`: every value; `1m`, `1h` …: roll-ups of so long. Default: raw to a file,"
            f" and about {TABLE_STEPS} steps in a table."
        ),
    ] = "",
    group: Annotated[str, typer.Option("--group", help="Only of this group.")] = "",
    machine: Annotated[str, typer.Option("--machine", help="Only of this machine.")] = "",
    form: Annotated[
        Format,
        typer.Option("--format", "-f", help="json: one object a line; parquet needs pyarrow."),
    ] = Format.table,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; default: standard output.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """What this box remembers: values of a PLC over days, from `history:` of its configuration.

    Times without a zone are this PC's. A value that is not known (a gap, bad quality, a PLC that
    did not answer) is left empty and never zero; `quality` and `known_s` say so.
    """
    if out is not None and form is Format.table:
        fail(
            "a table is not written to a file: --out needs --format csv, json or parquet",
            EXIT_USAGE,
        )
    begin_ms, end_ms = time_range(begin, end)
    step_ms = _step_ms(step, form, end_ms - begin_ms)
    site = load_site(config)
    with asker(site) as ask:
        known = [Series.of(s) for s in ask("series", plc=plc)["series"]]
        if not known:
            of = f" of {plc!r}" if plc else ""
            fail(f"no value{of} has been recorded{_instead(plc, site, ask)}")
        if not fields:
            _list(known)
            return
        chosen = _chosen(known, fields, group, machine)
        columns = RAW_COLUMNS if step_ms is None else STEP_COLUMNS
        if step_ms is None:
            rows = raw_rows(ask, chosen, begin_ms, end_ms)
        else:
            rows = step_rows(ask, chosen, _floored(begin_ms, step_ms), end_ms, step_ms)
        if form is Format.table:
            _print(rows, columns, chosen)
            _say_unknown(ask, chosen, begin_ms, min(end_ms, now_ms()))
            return
        count = _write(rows, columns, chosen, form, out)
        error_console.print(f"{count} rows")


def _step_ms(said: str, form: Format, range_ms: int) -> int | None:
    """None: every value."""
    if said == "raw" or (not said and form is not Format.table):
        return None
    if not said:
        least_ms = range_ms // TABLE_STEPS
        return max(1_000, -(-least_ms // 60_000) * 60_000 if least_ms > 60_000 else least_ms)
    try:
        step_ms = round(units.duration_s(said) * 1_000)
    except ValueError as e:
        fail(f"--step: {e}; or `raw`", EXIT_USAGE)
    if step_ms < 1_000:
        fail("--step: 1s at least; or `raw` for every value", EXIT_USAGE)
    return step_ms


def _floored(begin_ms: int, step_ms: int) -> int:
    """Steps begin where a clock on this PC's wall would: hours at :00, days at midnight."""
    local = datetime.fromtimestamp(begin_ms / 1_000, UTC).astimezone()
    offset_ms = round((local.utcoffset() or local - local).total_seconds() * 1_000)
    return begin_ms - (begin_ms + offset_ms) % step_ms


def _chosen(known: list[Series], fields: list[str], group: str, machine: str) -> list[Series]:
    found: list[Series] = []
    for field in fields:
        fitting = [
            s for s in known
            if fnmatchcase(s.field, field) and s.group == (group or s.group)
            and s.machine == (machine or s.machine)
        ]  # fmt: skip
        if not fitting:
            near = get_close_matches(field, {s.field for s in known}, 3)
            where = "".join(f" in {w}" for w in (group, machine) if w)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            fail(f"no field {field!r}{where} has been recorded{hint}; without one all are listed")
        found += [s for s in fitting if s not in found]
    if len(found) > MAX_SERIES:
        fail(f"{len(found)} values fit, {MAX_SERIES} at most go at once: name fewer", EXIT_USAGE)
    return found


def _instead(plc: str, site: Site, ask: Ask) -> str:
    there = sorted({s["series"][1] for s in ask("series")["series"]})
    if not there:
        return ": nothing has been, yet"
    hint = "" if any(p.id == plc for p in site.config.plcs) else ", and none is configured"
    return f"{hint}; there are {', '.join(there[:20])}"


def _list(known: list[Series]) -> None:
    same = [c for c in ("plc", "machine") if len({getattr(s, c) for s in known}) == 1]
    shown = [c for c in ("plc", "field", "group", "machine", "type", "unit") if c not in same]
    title = " ".join(filter(None, (getattr(known[0], c) for c in same)))
    table = Table(*shown, "first", "last", title=title)
    for s in known:
        ends = (moments.iso(ms)[:19].replace("T", " ") for ms in (s.first_ms, s.last_ms))
        cells = (s.kind if c == "type" and not s.type else getattr(s, c) for c in shown)
        table.add_row(*cells, *ends)
    console.print(table)


def _print(rows: Iterator[Row], columns: tuple[str, ...], chosen: list[Series]) -> None:
    # What is the same in all rows stands in the title, and what none can have nowhere.
    same = [c for c in _PLACE if len({getattr(s, c) for s in chosen}) == 1]
    kinds = {s.kind for s in chosen}
    never = {c for c, kind in (("increase", "counter"), ("edges", "bool")) if kind not in kinds}
    shown = [c for c in columns if c not in never.union(same)]
    title = " ".join(filter(None, (getattr(chosen[0], c) for c in same)))
    table = Table(*shown, title=title)
    table.columns[shown.index("time")].no_wrap = True
    left = 0
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        if cells.get("known_s") == 0 and not cells["count"]:
            continue  # what is not known is told below
        if table.row_count >= TABLE_ROWS:
            left += 1
            continue
        table.add_row(*(_cell(cells[c], c) for c in shown))
    console.print(table)
    if left:
        error_console.print(f"{left} rows more: `--step`, a shorter time, or `--format csv`")


def _cell(value: Any, column: str) -> str:
    if value is None or value == "":
        return "–" if column in ("value", "mean") else ""
    if column == "time":
        return moments.iso(value)[:23].replace("T", " ").removesuffix(".000")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _say_unknown(ask: Ask, chosen: list[Series], begin_ms: int, end_ms: int) -> None:
    if not 0 < end_ms - begin_ms <= WHY_MS:
        return
    for stream in dict.fromkeys(s.identity[:4] for s in chosen):
        found = ask("unknown", stream=list(stream), begin_ms=begin_ms, end_ms=end_ms)["unknown"]
        where = "/".join(filter(None, stream[1:]))
        for u in found[:WHY_SHOWN]:
            ends = (moments.iso(u[k])[:19].replace("T", " ") for k in ("begin_ms", "end_ms"))
            error_console.print(
                f"not known: {' to '.join(ends)} ({u['why']}) {where}",
                markup=False,
                highlight=False,
            )
        if len(found) > WHY_SHOWN:
            error_console.print(f"… and {len(found) - WHY_SHOWN} times more")


def _write(
    rows: Iterator[Row],
    columns: tuple[str, ...],
    chosen: list[Series],
    form: Format,
    out: Path | None,
) -> int:
    if form is Format.parquet and out is None and sys.stdout.isatty():
        fail("Parquet is binary: name a file with --out", EXIT_USAGE)
    writers = {Format.csv: csv_writer, Format.json: json_writer, Format.parquet: parquet_writer}
    try:
        with _file(out) as file:
            try:
                return writers[form](rows, columns, chosen, file)
            except ImportError:
                why = "Parquet needs pyarrow, which is not installed here"
                fail(f"{why}: pip install 'plc-edge[parquet]', or --format csv", EXIT_USAGE)
    except BrokenPipeError:
        raise
    except OSError as e:
        fail(f"{out or 'stdout'}: {e.strerror}")


@contextmanager
def _file(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def asker(site: Site) -> Iterator[Ask]:
    """Asks the running historian; where it is stopped, the files themselves."""
    runtime, folder = Path(site.config.paths.runtime), Path(site.config.paths.state) / "history"
    if _runs(runtime / "historian.lock"):
        bus = Bus(runtime)
        try:
            yield Asker(bus, "history", "the historian", ANSWER_S)
        finally:
            bus.close()
        return
    if not folder.is_dir():
        hint = "" if site.config.history else ": give it `history: {}` in the configuration"
        fail(f"this box has recorded no history{hint}")
    # numpy: only who reads the files needs it.
    from services.historian import oee
    from services.historian.asking import answer
    from services.historian.reading import History

    files = History(folder)
    shifts = oee.Oee(oee_rules.spec(site)) if site.config.shifts else None

    def ask(verb: str, **args: Any) -> Any:
        try:
            if verb in oee.VERBS:
                return oee.answer(shifts, files, verb, args)
            return answer(files, verb, args)
        except ValueError as e:
            fail(str(e))

    try:
        yield ask
    finally:
        files.close()


def _runs(lock: Path) -> bool:
    """Whether a historian holds its lock (runtime/process.py)."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
