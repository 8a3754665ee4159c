"""What every verb shares: the --config option, loading, printing, exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from services.runtime import loader, moments
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE, ConfigError
from services.runtime.site import Site

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration; default /etc/plc-edge/config.yaml, else ./config.yaml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# More is no help, and a terminal takes its time for each.
MAX_PRINTED = 500

# Without emoji: of a fingerprint `:AB:` would become one.
console = Console(emoji=False)
error_console = Console(stderr=True, emoji=False)


def time_range(begin: str, end: str, zone: tzinfo | None = None) -> tuple[int, int]:
    """`--from` and `--to` as Unix ms; ``zone``: of what says none, if not this PC's. Ends the
    command where they are no times, or none lies between them.
    """
    now, ends = now_ms(), []
    for name, said in (("--from", begin), ("--to", end)):
        try:
            ends.append(moments.moment_ms(said, now, zone))
        except ValueError as e:
            fail(f"{name}: {e}", EXIT_USAGE)
    if ends[0] >= ends[1]:
        fail(f"--from {begin!r} does not lie before --to {end!r}", EXIT_USAGE)
    return ends[0], ends[1]


def load_site(config: Path | None) -> Site:
    """The checked site; prints every problem and exits 2 where there is one."""
    try:
        site = loader.load(loader.find(config))
    except ConfigError as e:
        print_problems(e)
        raise typer.Exit(EXIT_USAGE) from None
    print_warnings(site)
    return site


def print_warnings(site: Site) -> None:
    """What is allowed but not wise, on stderr."""
    for warning in site.config.warnings:
        error_console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def print_problems(error: ConfigError) -> None:
    """One line and its fix per problem, on stderr."""
    print_each([str(p) for p in error.problems])
    count = len(error.problems)
    error_console.print(f"{count} problem{'s' if count > 1 else ''} found", style="red")


def print_each(texts: Sequence[str]) -> None:
    """Each on lines of its own, on stderr; of thousands only the first."""
    shown = list(texts[:MAX_PRINTED])
    if len(texts) > MAX_PRINTED:
        shown.append(f"… and {len(texts) - MAX_PRINTED} more")
    if shown:
        error_console.print("\n".join(shown), markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = EXIT_FAILURE) -> NoReturn:
    """Ends the command with a message on stderr."""
    error_console.print(message, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)
