"""``plc-edge store``: what waits in the outbox, exporting it, checking it, dead letters.

Asks the running store over its control socket; where it is stopped, opens the files itself, holding
the process's lock so that it cannot start meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from bus.frames import Request
from bus.sockets import Bus
from services.cli.asker import Asker, result_of
from services.cli.common import ConfigOption, JsonOption, console, error_console, fail, load_site
from services.runtime import render
from services.runtime.site import Site

OutputOption = Annotated[str, typer.Option("--output", "-o", help="Which output; see `status`.")]


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    store = typer.Typer(help="Look into the outbox.", no_args_is_help=True)
    for verb in (status, export, verify, purge, retry):
        store.command()(verb)
    app.add_typer(store, name="store")


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What waits for each output, how old it is, dead letters and the disk."""
    with asker(load_site(config)) as ask:
        answer = ask("status")
    if as_json:
        console.print_json(json.dumps(answer))
        return
    table = Table("output", "pending", "oldest", "in flight", "dead letters", "connected")
    for name, o in answer["outputs"].items():
        age = f"{o['oldest_age_s']:.0f} s" if o["pending"] else "-"
        connected = "yes" if o["connected"] else "no"
        cells = (o["pending"], age, o["in_flight"], o["dead_letters"], connected)
        table.add_row(name, *(str(c) for c in cells))
    console.print(table)
    used, limit, free = (answer[k] / 2**20 for k in ("bytes", "max_bytes", "free_bytes"))
    console.print(
        f"{used:.1f} of {limit:.0f} MiB in {answer['segments']} files, {free:.0f} MiB free"
    )
    for reason, count in answer["dropped"].items():
        console.print(f"dropped since the store started: {count} ({reason})")
    if answer["disk_full"]:
        console.print(f"DISK FULL: {answer['disk_full']}: free space", style="red")
    for letter in answer["dead"][:20]:
        text = f"dead letter of {letter['output']}: {letter['plc']} seq {letter['seq']}"
        console.print(f"{text}: {letter['reason']}", markup=False)
    if answer["dead"]:
        console.print("`plc-edge store export --dead` shows them, `retry` sends them again")


def export(
    output: OutputOption,
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="File; default: standard output.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters instead.")] = False,
) -> None:
    """Writes what waits for an output as JSON lines; nothing is removed."""
    file = out.open("wb") if out else sys.stdout.buffer
    count = 0
    with asker(load_site(config)) as ask, Progress(console=error_console) as progress:
        if dead:
            for _, body in ask("dead", output=output):
                file.write(body + b"\n")
                count += 1
        else:
            pending = ask("status")["outputs"].get(output, {}).get("pending", 0)
            bar = progress.add_task("exporting", total=pending)
            after = 0
            while page := ask("rows", output=output, after=after):
                file.write(b"".join(body + b"\n" for _, body in page))
                after = page[-1][0]
                count += len(page)
                progress.update(bar, completed=count, total=max(pending, count))
    file.flush()
    if out:
        file.close()
    error_console.print(f"{count} messages")


def verify(config: ConfigOption = None) -> None:
    """Reads every row and checks it; exits 1 where something is damaged."""
    problems = []
    with asker(load_site(config)) as ask, Progress(console=error_console) as progress:
        bar = progress.add_task("verifying", total=None)
        number = 0
        while True:
            answer = ask("verify", segment=number)
            progress.update(bar, total=answer["segments"], completed=number)
            if not answer["name"]:
                break
            if answer["problem"]:
                problems.append(answer["problem"])
            number += 1
    for problem in problems:
        console.print(problem, markup=False)
    if problems:
        fail("damaged: the store puts such a file aside when it reads it, and sends gap messages")
    console.print(f"{number} files, all good")


def purge(
    output: OutputOption,
    config: ConfigOption = None,
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters instead.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Gives up what waits for an output; a gap message says what was given up."""
    if not yes:
        typer.confirm(f"Give up what waits for {output}?", abort=True)
    with asker(load_site(config)) as ask:
        console.print(f"{ask('purge', output=output, dead=dead)} messages given up")


def retry(output: OutputOption, config: ConfigOption = None) -> None:
    """Sends an output's dead letters again, behind all that waits."""
    with asker(load_site(config)) as ask:
        console.print(f"{ask('retry', output=output)} messages queued again")


@contextmanager
def asker(site: Site) -> Iterator[Any]:
    """Asks the store, running or stopped."""
    runtime = Path(site.config.paths.runtime)
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The lock that the process itself takes (runtime/process.py): whoever holds it owns the files.
    lock = os.open(runtime / "store_forward.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        bus = Bus(runtime)
        try:
            yield Asker(bus, "control", "the store")
        finally:
            bus.close()
        return
    try:
        with _stopped(site) as ask:
            yield ask
    finally:
        os.close(lock)


@contextmanager
def _stopped(site: Site) -> Iterator[Any]:
    """The files themselves; the caller holds the lock."""
    from services.store_forward.control import Control
    from services.store_forward.offline import Offline

    folder = Path(site.config.paths.state) / "outbox"
    if not folder.is_dir():
        fail(f"there is no outbox at {folder}: nothing was ever stored there")
    store = Offline(render.render(site)["store_forward"])
    control = Control(store)

    def ask(verb: str, **args: Any) -> Any:
        return result_of(control.answer(Request(verb, args)))

    try:
        yield ask
    finally:
        store.outbox.close()
