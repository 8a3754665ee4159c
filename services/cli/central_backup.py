"""``plc-edge central backup`` and ``restore``: all that the centre remembers, in one file."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from bus.topology import process_name
from services.cli.central_centre import CentralOption, load, opened
from services.cli.common import JsonOption, console, error_console, fail
from services.runtime import central_config
from services.runtime.central_config import Centre
from services.runtime.process import take_lock

if TYPE_CHECKING:
    from services.control_plane.backup import Summary

SECRET = (
    "this file holds SECRETS: the keys of the audit and of every broker account. Keep it as you"
    " keep a private key; to encrypt it on its way: `plc-edge central backup - | age -r … > FILE`"
)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="`-`: standard output, input.")]


def register(central: typer.Typer) -> None:
    """Adds both."""
    central.command(help="Write database and keys into one file, while all runs.")(backup)
    central.command(help="Put a backup back; the control plane is stopped first.")(restore)


def backup(file: FileArgument, config: CentralOption = None, json_: JsonOption = False) -> None:
    """One consistent state, whatever is written meanwhile. FILE appears when it is complete."""
    centre = load(config)
    central_config.write_clear_password(centre)
    from services.control_plane import backup as writing

    with opened(centre) as database:
        if str(file) == "-":
            summary = writing.write(database, centre.state, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            try:
                with writing.new_file(file) as out:
                    summary = writing.write(database, centre.state, out)
            except OSError as e:
                fail(f"{file} cannot be written: {e.strerror or e}")
    error_console.print(f"warning: {SECRET}", style="yellow", markup=False, soft_wrap=True)
    if str(file) != "-":
        _say(f"{file}: written", summary, json_)


def restore(
    file: FileArgument,
    config: CentralOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the database and the key files hold.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """All of it or nothing, also where it is killed in the middle. The broker's accounts follow
    when the control plane is started.
    """
    centre = load(config)
    for folder in (centre.state, centre.runtime):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    central_config.write_clear_password(centre)
    from services.control_plane import restore as reading

    with _stopped(centre), opened(centre) as database, _source(file) as source:
        done = reading.restore(database, centre.state, source, force=force)
    for warning in done.warnings:
        error_console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    _say("restored", done.backup, json_, warnings=done.warnings)


def _say(what: str, summary: Summary, json_: bool, **more: Any) -> None:
    made = datetime.fromtimestamp(summary.made_ms / 1_000, UTC).isoformat(timespec="seconds")
    if json_:
        counts = {"keys": summary.keys, "tables": summary.tables, "rows": summary.rows}
        said = {"schema": summary.schema, "made_at": made, **counts, **more}
        console.print_json(json.dumps(said))
        return
    text = (
        f"{what}: the state of {made}, schema {summary.schema}, {summary.tables} tables with"
        f" {summary.rows:,} rows, keys {', '.join(summary.keys)}"
    )
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _stopped(centre: Centre) -> Iterator[None]:
    """Keeps the control plane of this machine from running meanwhile."""
    with ExitStack() as locks:
        for name in ("run", process_name("control_plane")):
            try:
                locks.enter_context(open(take_lock(centre.runtime, name)))  # closes it
            except BlockingIOError:
                fail("the control plane runs: stop `plc-edge central run` first")
        yield


@contextmanager
def _source(file: Path) -> Iterator[IO[bytes]]:
    """What can be read twice."""
    if str(file) != "-":
        try:
            with file.open("rb") as source:
                yield source
        except OSError as e:
            fail(f"{file} cannot be read: {e.strerror or e}")
        return
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        yield spool
