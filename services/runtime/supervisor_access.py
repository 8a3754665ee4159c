"""The key to supervisord's control socket: a file beside it that supervisord itself includes.

Without a password supervisord logs a CRIT line at every start that alarms whoever reads it first.
The password is another one at every start and stands in this file only (mode 0600, in the runtime
directory): in no process list, no environment, no log. Whoever may open the socket may read it, so
``supervisorctl -c <runtime>/supervisorctl.conf`` asks for nothing.
"""

from __future__ import annotations

import configparser
import os
import secrets
from pathlib import Path

SOCKET, ACCESS = "supervisor.sock", "supervisorctl.conf"
_USER = "plc-edge"
_TEXT = """\
; Written at every start, with a new password; do not edit.
;   supervisorctl -c {file} status
[supervisord]
{privileges}
[unix_http_server]
username={user}
password={password}

[supervisorctl]
serverurl=unix://{socket}
username={user}
password={password}
"""
# supervisord asks a root to say that it means it (another CRIT line). An installed box has a user
# of its own; a container or a trial may have none, and whoever starts us as root has said so.
_ROOT = "user=root\n"


def write(runtime: Path) -> None:
    """Makes the file, before supervisord starts; at once, for whoever asks meanwhile."""
    file = runtime / ACCESS
    text = _TEXT.format(
        file=file,
        socket=runtime / SOCKET,
        user=_USER,
        password=secrets.token_hex(16),
        privileges=_ROOT if os.getuid() == 0 else "",
    )
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)
    new.rename(file)


def read(socket: str | Path) -> tuple[str | None, str | None]:
    """(user, password) for a socket; nothing where its supervisord has none.

    Raises PermissionError where the file is another user's.
    """
    parser = configparser.RawConfigParser()
    try:
        with Path(socket).with_name(ACCESS).open(encoding="utf-8") as f:
            parser.read_file(f)
    except FileNotFoundError:
        return None, None
    return parser["supervisorctl"]["username"], parser["supervisorctl"]["password"]
