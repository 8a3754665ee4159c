"""What the ends of one link's connections, taken together, say of its broker: a cause that no
single end tells, and the key of the configuration that mends it.
"""

from __future__ import annotations

from collections import Counter, deque

from services.mqtt.packets import REASONS
from services.runtime.tls_faults import Fault

# So many accepted connections ended by the other side without a word, within so long, are no
# accident. Mosquitto 2.0 ends one that is taken over so, in MQTT 5, too.
ENDS = 3
WINDOW_S = 60.0
# Attempts in a row that the other side ends before it has said anything: does it await TLS?
MUTE_ENDS = 2
TAKEN_OVER = REASONS[0x8E]


class Signs:
    """Of one link. ``who``: its client id and account, in words."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._up = False
        self._ends: deque[tuple[float, str]] = deque(maxlen=ENDS)
        """When, and at which host, accepted connections ended without a word."""
        self._taken_s = -WINDOW_S
        self._mute: Counter[str] = Counter()
        """By host: ends in a row before any answer."""

    def look(self, host: str, up: bool, code: str, message: str, now_s: float) -> bool:
        """Takes the link's new state; whether it is time to ask ``host`` whether it speaks TLS."""
        was_up, self._up = self._up, up
        if up:
            del self._mute[host]
            return False
        if was_up and TAKEN_OVER in message:
            self._taken_s = now_s
        if code != "lost":
            return False
        if was_up:
            self._ends.append((now_s, host))
            return False
        self._mute[host] += 1
        return self._mute[host] == MUTE_ENDS

    def verdict(self, now_s: float) -> Fault | None:
        """The cause, while it shows."""
        if now_s - self._taken_s < WINDOW_S:
            return Fault(
                "taken_over",
                f"another client logs in with {self._who}, and the broker ends ours",
                "give each box its own `site:` (or `client_id:`) and its own account",
            )
        if len(self._ends) == ENDS and now_s - self._ends[0][0] < WINDOW_S:
            several = len({host for _, host in self._ends}) > 1
            passing = "has the cluster lost a node? Then it passes by itself. " if several else ""
            return Fault(
                "unstable",
                f"the broker accepts us and closes the connection again, {ENDS} times within"
                f" {WINDOW_S:g} s",
                f"{passing}Does another client use {self._who}? Then give each box its own"
                " `site:` (or `client_id:`) and account. Does it drop idle clients? Then a shorter"
                " `keepalive:`. Its log says which",
            )
        return None
