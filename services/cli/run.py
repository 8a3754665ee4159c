"""``plc-edge run``: what systemd starts."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from services.cli.common import ConfigOption, error_console, fail, print_problems, print_warnings
from services.runtime import loader, render, supervise, yaml_lines
from services.runtime.config import Paths
from services.runtime.errors import EXIT_USAGE, ConfigError


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Run the site in the foreground, under supervisord.")(run)


def run(config: ConfigOption = None) -> None:
    """Renders what the processes read and becomes their supervisor."""
    file = loader.find(config)
    try:
        site = loader.load(file)
    except ConfigError as e:
        print_problems(e)
        rendered = _fall_back(file)
    else:
        print_warnings(site)
        rendered = render.render(site)
        render.write_clear_secrets(site)
        render.save_applied(site, rendered)
    render.write(rendered, str(file))
    some = rendered["metrics"]
    supervise.become(some["runtime"], some["logs"])


def _fall_back(file: Path) -> render.Rendered:
    """What was applied last: a bad edit must not keep a plant from starting after a power cut."""
    state = os.environ.get("PLC_EDGE__PATHS__STATE")
    if state is None:
        try:
            state = yaml_lines.load(file).data["paths"]["state"]
        except (ConfigError, TypeError, KeyError):
            state = str(Paths().state)
    rendered = render.load_applied(Path(str(state)))
    if rendered is None:
        fail("nothing was applied before, so there is nothing to run", EXIT_USAGE)
    error_console.print(
        f"running DEGRADED with what was applied last ({state}/applied): mend the configuration"
        " and run `plc-edge apply`",
        style="red",
        soft_wrap=True,
    )
    rendered["metrics"]["degraded"] = f"{file} is invalid; running what was applied last"
    return rendered
