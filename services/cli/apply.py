"""``plc-edge apply``: the running site takes the edited configuration, restarting only what
changed."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

import typer

from services.cli.common import ConfigOption, console, fail, load_site
from services.runtime import render
from services.runtime.supervise import rpc


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Make the running site take the edited configuration.")(apply)


def apply(config: ConfigOption = None) -> None:
    """Validates, renders, then adds, removes or restarts only what changed."""
    site = load_site(config)
    socket = render.supervisor_socket(site)
    try:
        supervisor = rpc(socket)
        supervisor.getState()
    except (OSError, xmlrpc.client.Error) as e:
        fail(f"plc-edge is not running here ({socket}: {e}); start it with `plc-edge run`")
    rendered = render.render(site)
    render.write_clear_secrets(site)
    changed = render.write(rendered, str(site.config.file))
    said = update(supervisor, changed)
    render.save_applied(site, rendered)
    for line in said or ["nothing changed"]:
        console.print(line, highlight=False)


def update(supervisor: Any, changed: set[str]) -> list[str]:
    """Brings supervisord to what is rendered; returns what was done, a line per process."""
    added, reread, removed = supervisor.reloadConfig()[0]
    said = []
    for name in [*removed, *reread]:
        supervisor.stopProcessGroup(name)
        supervisor.removeProcessGroup(name)
    for name in [*added, *reread]:
        supervisor.addProcessGroup(name)
    said += [f"stopped {n}" for n in removed]
    said += [f"restarted {n}" for n in reread]
    said += [f"started {n}" for n in added]
    # metrics and store_forward stand in supervisord.conf, which does not change with the hash.
    for name in sorted(changed - set(added) - set(reread)):
        supervisor.stopProcess(name)
        supervisor.startProcess(name, False)
        said.append(f"restarted {name}")
    return said
