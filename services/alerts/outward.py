"""At the centre tenants say who is told, so their receivers must not reach what only this machine
can: its own ports, the network behind it, a cloud's metadata.

Looked at where a connection is made, after the name is resolved: a name that is harmless when it is
checked and another when it is used gains nothing.
"""

from __future__ import annotations

import ipaddress
import sys
import threading
from typing import Any

from services.runtime.background import THREAD


def is_public(address: str) -> bool:
    """Whether an IP address is one of the Internet at large."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped if mapped is not None else ip
    return ip.is_global and not ip.is_multicast


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
