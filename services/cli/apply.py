"""``plc-edge apply``: the running site takes the edited configuration, restarting only what
changed."""

from __future__ import annotations

import typer

from services.cli.common import ConfigOption, console, load_site
from services.runtime import applying


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Make the running site take the edited configuration.")(apply)


def apply(config: ConfigOption = None) -> None:
    """Validates, renders, then adds, removes or restarts only what changed."""
    for line in applying.apply(load_site(config)) or ["nothing changed"]:
        console.print(line, highlight=False)
