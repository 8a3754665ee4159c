"""``plc-edge export``: the simple exporter of old: one loop, one PLC, values to stdout or a file.

No broker, no store: what is read while the output is away is not kept. For everything else there is
``plc-edge run``.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from services.cli.common import ConfigOption, error_console, fail
from services.cli.direct import Batch, Direct, configured
from services.cli.watch import Watcher

COLUMNS = ("ts", "plc_id", "group", "machine", "field", "value", "unit", "bad")


class Format(StrEnum):
    """How values are written."""

    text = "text"
    csv = "csv"
    jsonl = "jsonl"


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="One PLC's values to stdout or a file, as text, CSV or JSON lines.")(export)


def export(
    plc: Annotated[str, typer.Argument(help="Its id in the configuration.")],
    tags: Annotated[list[str] | None, typer.Argument(help="Fields, as for `read`.")] = None,
    config: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="text, csv, jsonl")] = Format.text,
    out: Annotated[Path | None, typer.Option(help="Append to this file.")] = None,
    seconds: Annotated[float, typer.Option(help="Stop after so long; 0: until Ctrl-C.")] = 0.0,
) -> None:
    """Reads each group at its own rate; exit 1 when nothing could be read at all."""
    site, direct = configured(config, plc, tags or ())
    found = direct.plc
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watcher = Watcher(direct, time.monotonic() + seconds if seconds > 0 else float("inf"))
    try:
        with open(out, "a", encoding="utf-8", newline="") if out else _Stdout() as file:
            is_new = not out or out.stat().st_size == 0
            writer = _writer(
                form, file, direct, site.config.tenant(found), site.config.site, is_new
            )
            watcher.run(writer, lambda text: error_console.print(text, markup=False))
    except BrokenPipeError:
        raise
    except OSError as e:
        fail(f"{out or 'stdout'}: {e.strerror}")
    except KeyboardInterrupt:
        pass
    finally:
        direct.close()
    if not watcher.scans:
        fail(f"{found.id}: {watcher.trouble}")


class _Stdout:
    """stdout as a context that does not close it."""

    def __enter__(self) -> TextIO:
        return sys.stdout

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


def _writer(
    form: Format, file: TextIO, direct: Direct, tenant: str, site: str, is_new: bool
) -> Callable[[Batch], None]:
    plc = direct.plc

    def jsonl(batch: Batch) -> None:
        for message in batch.messages(direct, tenant, site):
            file.write(json.dumps(message, ensure_ascii=False) + "\n")
        file.flush()

    def text(batch: Batch) -> None:
        for row in batch.rows:
            value = f"bad: {row.bad}" if row.bad else f"{row.value} {row.field.unit}".rstrip()
            file.write(f"{batch.ts_ms} {plc.id}.{row.names[-1]} = {value}\n")
        file.flush()

    if form is Format.jsonl:
        return jsonl
    if form is Format.text:
        return text
    table = csv.writer(file)
    if is_new:
        table.writerow(COLUMNS)

    def rows(batch: Batch) -> None:
        for r in batch.rows:
            value = "" if r.bad else r.value
            machine = r.machine or ""
            cells = (batch.name, machine, r.field.name, value, r.field.unit, r.bad)
            table.writerow((batch.ts_ms, plc.id, *cells))
        file.flush()

    return rows
