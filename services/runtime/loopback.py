"""Whether an address leads out of this machine."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Of an IP address or ``localhost``; any other name may lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
