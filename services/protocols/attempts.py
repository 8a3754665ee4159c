"""Which of a PLC's addresses is tried, and when again after it was lost or did not answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

BACKOFF_S, BACKOFF_MAX_S = 0.5, 15.0
# A change of address costs no wait, but two in a row do: a pair that accepts and resets would be
# asked in a tight loop.
SWITCH_MIN_S = 5.0


class Attempts:
    """The attempts at one PLC. ``hosts``: its addresses, the first to try first."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.host = hosts[0]
        """The address that was read last."""
        self.tried = self.host
        """The address of this connection, or of the last attempt."""
        self.count = 0
        """Connections that were lost or not made, since the last proven one."""
        self.is_switching = False
        """One address is lost, and another is tried at once."""
        self.served: set[str] = set()
        """Addresses that have been read."""
        self._hosts = hosts
        self._switched_s = -SWITCH_MIN_S

    @property
    def is_again(self) -> bool:
        """The PLC was read before, or an attempt has failed."""
        return bool(self.count or self.served)

    def proven(self) -> str:
        """The PLC has answered a read at ``tried``. The address that was read before, if it is
        another; else empty.
        """
        self.count = 0
        self.is_switching = False
        self.served.add(self.tried)
        was, self.host = self.host, self.tried
        return was if was != self.host else ""

    def failed(self, now_s: float) -> None:
        """The attempt at ``tried``, or the connection to it, is over: ``next`` is the caller's
        next call. Monotonic seconds.
        """
        self.count += 1
        others = self.count % len(self._hosts)
        self.is_switching = others > 0 and now_s - self._switched_s >= SWITCH_MIN_S

    def next(self, now_s: float) -> float:
        """Moves on to the next address; when it is due (monotonic)."""
        self.tried = self._hosts[(self._hosts.index(self.tried) + 1) % len(self._hosts)]
        if self.is_switching:
            self._switched_s = now_s
            return now_s
        rounds = self.count // len(self._hosts)
        backoff_s: float = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** max(0, min(10, rounds - 1)))
        # Jitter: fifty readers of one switch must not come back in step.
        return now_s + backoff_s * random.uniform(0.5, 1.0)
