"""The running site takes another configuration: what ``plc-edge apply`` does, and the fleet process
by it.

One at a time on a box, and repeatable: a call that was killed half-way is completed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bus.topology import PROCESSES
from services.runtime import files, render, supervisor_access
from services.runtime.errors import PlcEdgeError
from services.runtime.render import Rendered
from services.runtime.site import Site
from services.runtime.supervise import rpc

# Another apply stops its processes one after the other, up to 6 s each.
LOCK_WAIT_S = 60.0
# Programs of supervisord.conf that a killed apply has still to restart.
OWED = "owed.json"


class NotRunning(PlcEdgeError):
    """There is no running site to take it."""


def apply(site: Site) -> list[str]:
    """Renders a checked site, adds, removes or restarts only what changed; a line per process.

    Raises NotRunning, or PlcEdgeError where another apply does not end.
    """
    runtime = site.config.paths.runtime.absolute()
    with _alone(runtime):
        supervisor = _supervisor(runtime)
        rendered = render.render(site)
        render.write_clear_secrets(site)
        said = _take(supervisor, rendered, str(site.config.file))
        render.save_applied(site, rendered)
    return said


def restore(rendered: Rendered, source: str) -> list[str]:
    """The same with what was rendered earlier (``render.load_applied``), just as it was."""
    runtime = Path(next(iter(rendered.values()))["runtime"])
    with _alone(runtime):
        return _take(_supervisor(runtime), rendered, source)


@contextlib.contextmanager
def _alone(runtime: Path) -> Iterator[None]:
    try:
        fd = os.open(runtime / "apply.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as e:
        raise NotRunning(_not_running(runtime, e)) from None
    except OSError as e:
        text = f"{e.filename}: {e.strerror}: run it as the user that runs the site"
        raise PlcEdgeError(text) from None
    try:
        deadline_s = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    text = f"another apply has been at work for {LOCK_WAIT_S:.0f} s: try again"
                    raise PlcEdgeError(text) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(fd)


def _supervisor(runtime: Path) -> Any:
    socket = runtime / supervisor_access.SOCKET
    try:
        supervisor = rpc(socket)
        supervisor.getState()
    except (OSError, xmlrpc.client.Error) as e:
        raise NotRunning(_not_running(socket, e)) from None
    return supervisor


def _not_running(where: Path, error: Exception) -> str:
    return f"plc-edge is not running here ({where}: {error}); start it with `plc-edge run`"


def _take(supervisor: Any, rendered: Rendered, source: str) -> list[str]:
    runtime = Path(next(iter(rendered.values()))["runtime"])
    owed = runtime / OWED
    changed = render.changed(rendered)
    # supervisord itself sees what changed in the programs that are rendered; of those in
    # supervisord.conf, once their JSON is written, nobody could tell any more.
    static = {n for n in rendered if not PROCESSES[rendered[n]["folder"]].rendered}
    with contextlib.suppress(OSError, ValueError):
        changed |= static & set(json.loads(owed.read_bytes()))
    files.write_whole(owed, json.dumps(sorted(static & changed)).encode())
    render.write(rendered, source)
    said = update(supervisor, changed)
    owed.unlink(missing_ok=True)
    return said


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
