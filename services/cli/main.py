"""``plc-edge``: exit 0 ok, 1 runtime failure, 2 bad usage or configuration (CONTRACT §2)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import typer

from services.cli.common import error_console, print_problems
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE, ConfigError, PlcEdgeError

# In the order of `plc-edge --help`: each is a file beside this one with `register(app)`.
VERBS = (
    "demo",
    "check",
    "run",
    "apply",
    "status",
    "store",
    "alerts",
    "history",
    "oee",
    "backfill",
    "fleet",
    "doctor",
    "read",
    "watch",
    "export",
    "probe",
    "browse",
    "trust",
    "layout_import",
    "simulate",
    "version",
    "infra",
    "central",
    "bundle",
)


def app() -> typer.Typer:
    """The command with all its verbs."""
    cli = typer.Typer(
        name="plc-edge",
        help="Siemens S7 PLCs to MQTT, with nothing lost.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in VERBS:
        importlib.import_module(f"services.cli.{verb}").register(cli)
    return cli


def main() -> None:
    """The console script."""
    guarded(app())


def guarded(command: Callable[[], object]) -> None:
    """Runs the command; what it raises becomes words and an exit code."""
    try:
        command()
    except ConfigError as e:
        print_problems(e)
        sys.exit(EXIT_USAGE)
    except PlcEdgeError as e:
        error_console.print(str(e), markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_FAILURE)
    except BrokenPipeError:  # `plc-edge … | head`
        sys.stderr.close()
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
