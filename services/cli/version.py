"""``plc-edge version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import typer

from services.cli.common import console
from services.s7.real import IS_COMPILED

SHOWN = ("plc-edge", "pyzmq", "paho-mqtt", "apsw", "python-snap7", "supervisor")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Print the versions of plc-edge and of what it stands on.")(version)


def version() -> None:
    """One line each."""
    for name in SHOWN:
        console.print(f"{name} {installed(name)}", highlight=False)
    console.print(f"decoder {'compiled' if IS_COMPILED else 'plain Python'}", highlight=False)
    console.print(f"python {platform.python_version()}", highlight=False)
