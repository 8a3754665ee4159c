"""A group whose fields are tags (OPC UA nodes, symbols): what it holds, and the readings of it.

Polled groups (``mode: scan``) make one reading a scan. Subscribed ones (``mode: subscribe``) make
one of each moment at which something changed: changes of different tags whose source times lie
within ``GATHER_MS`` are one moment, two changes of one tag never are. Each reading holds the whole
group as it was then, under the source's time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.protocols.conform import conform
from services.s7.field import Field

# A thousand tags that a server samples one after another are one moment of some ms; told one by
# one they would be a thousand messages of a thousand values.
GATHER_MS = 10
# A source's time that is further off than this from this PC's is no timestamp.
TIME_TOLERANCE_MS = 300_000
# A group's time does not go back by less than this: what comes late is told at the time of what
# was told before it, or two values would have one place in a database.
LATE_MS = 2_000
# A subscription's first values come in several pieces: what has not come by then is missing.
FILL_S = 5.0


@dataclass(slots=True)
class Change:
    """A new value of one tag, or that it has none."""

    name: str
    value: Any = None
    """As the library has decoded it; services/protocols/conform.py says what may come."""
    bad: str = ""
    """Why there is none, a word; empty where ``value`` is good."""
    ts_ms: int = 0
    """The source's own time, Unix ms; 0: it gives none."""


class Tags:
    """One group of tags."""

    def __init__(self, config: dict[str, Any], now_ms: Callable[[], int]) -> None:
        """``config``: a group as rendered (services/runtime/render.py)."""
        self.fields = [Field.from_dict(f) for f in config["fields"]]
        self.is_subscribed: bool = config.get("mode") == "subscribe"
        self._scan_ms = round(config["scan_s"] * 1_000)
        self._now_ms = now_ms
        self._conform = {f.name: conform(f) for f in self.fields}
        self._values: dict[str, Any] = {}
        self._bad: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._told_ms = 0
        self._since_ms = 0
        self.refused: dict[str, str] = {}
        """Tag as the source calls it -> why it is refused."""
        self.forget()

    def forget(self) -> None:
        """A new connection: nothing is known."""
        self._values.clear()
        self._bad.clear()
        self._unknown = {f.name for f in self.fields}
        self._since_ms = self._now_ms()

    @property
    def is_known(self) -> bool:
        """Every tag has had a value or a reason, or enough time for it."""
        return not self._unknown or self._now_ms() - self._since_ms > FILL_S * 1_000
