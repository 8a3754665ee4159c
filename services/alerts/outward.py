"""At the centre tenants say who is told, so their receivers must not reach what only this machine
can: its own ports, the network behind it, a cloud's metadata.

Looked at where a connection is made, after the name is resolved: a name that is harmless when it is
checked and another when it is used gains nothing.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from services.runtime.addresses import is_public
from services.runtime.background import THREAD


def only_outward() -> None:
    """From here on, for ever: what runs in the background, where receivers are told, connects to
    public addresses only. (The broker's connections are made in threads of paho's.)
    """

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or threading.current_thread().name != THREAD:
            return
        address = arguments[1]
        if isinstance(address, tuple) and not is_public(str(address[0])):
            raise PermissionError(f"{address[0]} is no public address: see `alert_receivers`")

    sys.addaudithook(look)
