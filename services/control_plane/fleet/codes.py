"""Claim codes, and how often a stranger may try one."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import OrderedDict

# Crockford's: none that are mistaken for another when read aloud or typed.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS, GROUP = 4, 5
_READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


def new() -> str:
    """100 random bits, e.g. ``7HK2M-0QZ4T-XVB19-3NDRC``."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS))


def digest(code: str) -> str:
    """What is kept of one: SHA-256, whatever the case, the dashes and O for 0. Nobody can guess
    100 bits, so a slow hash would gain nothing.
    """
    return hashlib.sha256(code.upper().translate(_READ_AS).encode()).hexdigest()


class Attempts:
    """Wrong codes of each address: ``BURST`` at once, and one more each ``EVERY_S``. Right ones
    count nothing: a plant may claim all its boxes through one address. No clock of its own.
    """

    BURST, EVERY_S = 10, 6.0
    ADDRESSES = 10_000

    def __init__(self) -> None:
        self._full_s: OrderedDict[str, float] = OrderedDict()
        """Address -> when its failures will be forgotten."""

    def wait_s(self, address: str, now_s: float) -> float:
        """How long it must wait before the next try; 0: not at all."""
        debt_s = self._full_s.get(_network(address), now_s) - now_s
        return max(0.0, debt_s - (self.BURST - 1) * self.EVERY_S)

    def failed(self, address: str, now_s: float) -> None:
        """A wrong code came from there."""
        key = _network(address)
        self._full_s[key] = max(self._full_s.get(key, now_s), now_s) + self.EVERY_S
        self._full_s.move_to_end(key)
        if len(self._full_s) > self.ADDRESSES:  # whoever has so many needs no limit to be slow
            self._full_s.popitem(last=False)


def _network(address: str) -> str:
    """An IPv6 host has a whole /64 to itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
