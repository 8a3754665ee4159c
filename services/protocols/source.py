"""What a protocol is to the reader's engine: a source of readings, and who takes them.

The engine (services/reader) has the schedule, messages, sequence, ring, quality and heartbeat; a
source has the connection, what is asked for, what the PLC refuses, and the decoding. They meet
here, in the process's loop: no call waits for the network, none comes from another thread.
A library that blocks, or has a loop of its own, stands behind services/protocols/threaded.py.

``services/protocols/<protocol>/source.py`` has ``open_source(process, user) -> Source``; it reads
``process.config["plc"]`` and ``["groups"]`` (services/runtime/render.py) and may raise ConfigError.
Groups are named by their place in ``process.config["groups"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.runtime.errors import PlcUnavailable

Record = tuple[bool, Mapping[str, Any], Mapping[str, str]]
"""One machine's (whether anything may have changed since its last record, values, bad).

``values`` are as JSON takes them (CONTRACT §4): no NaN or infinity, no integer beyond 2^53, times
in ISO 8601, a REAL in its shortest form, scaled. What could not be read is not in ``values`` and is
in ``bad`` with its reason, a word (``access_denied``). A source never changes either afterwards.
"""


@dataclass(slots=True)
class Reading:
    """What one scan of a group brought, or one change that the PLC told by itself.

    It always holds the whole group as it was at ``ts_ms``: every field is in ``values`` or ``bad``.
    Each reading becomes the messages of one moment: two changes of a tag are two readings.
    """

    records: list[Record]
    """One per machine of the group, in order."""
    ts_ms: int
    """Unix ms: the midpoint of request and response, or the source's own time of the newest
    value."""
    latency_ms: float = 0.0
    began_s: float = 0.0
    """Monotonic: when the request left; 0: nothing was asked (all is refused; a change that was
    told; a subscribed group)."""
    requests: int = 1
    """Requests that the PLC has answered for it."""
    failed: tuple[str, str] | None = None
    """(code, text): the PLC refuses the request as a whole, which says nothing of single fields."""
    doubt: str = ""
    """Why the values are `uncertain`, a word; besides what ``Source.frozen`` says."""
    is_scan: bool = True
    """It answers ``scan``. Changes between scans (False) leave the schedule alone."""


@dataclass(slots=True)
class Lost:
    """Changes that a subscription has lost, of one group: the server's queue had no room (its
    overflow bit), or the reader's own."""

    count: int
    """At least so many; a server's overflow bit counts 1. 0: perhaps none, nobody can tell."""
    fields: dict[str, int] = field(default_factory=dict)
    """Of which fields, by name, as far as that is known."""
    why: str = "server_queue"
    """``server_queue``, ``reader_queue``; ``reader_started``: what changed before this process was
    subscribed is not known; ``switched``: nor what did between two of the PLC's addresses."""


class User(Protocol):
    """Who takes the readings: the engine."""

    def connected(self) -> None:
        """A new connection: nothing that was asked before comes any more; all is news."""

    def may_read(self) -> None:
        """The connection takes ``scan``."""

    def answered(self, text: str) -> None:
        """The PLC has answered the first read on this connection (``Source.is_proven`` is true from
        now on). ``text`` describes the connection: ``PDU 480, 8 jobs``."""

    def complete(self, group: int, reading: Reading) -> None:
        """A reading. Those of one group come in the order in which they are to be delivered."""

    def changes_lost(self, group: int, lost: Lost) -> None:
        """Changes will never come. Told before the reading that follows the hole: that one is
        `uncertain` with ``"*": "changes_lost"``, an event names the fields, a counter counts."""

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """The connection to ``host`` is gone, or could not be made: no scan that was asked for
        comes back. ``error.code`` and ``.message`` go into the heartbeat."""

    def state_changed(self) -> None:
        """``Source.frozen`` is another than before."""


class Source(Protocol):
    """One PLC, by one protocol. It connects, and connects again, by itself for ever
    (services/protocols/attempts.py says when), with jitter, from one of ``plc["hosts"]`` to the
    next."""

    @property
    def host(self) -> str:
        """The address that was read last; before, the first of ``plc["hosts"]``."""

    @property
    def is_proven(self) -> bool:
        """The PLC has answered a read on this connection: it is not `offline`."""

    @property
    def is_switching(self) -> bool:
        """One address is lost and another is tried at once: not `offline` yet."""

    @property
    def attempts(self) -> int:
        """Connections lost or not made since the last proven one."""

    @property
    def frozen(self) -> str:
        """Why the PLC's data may be frozen, a word: ``cpu_stop``, ``alive_stale``; else empty."""

    def refused(self, group: int) -> Mapping[str, str]:
        """What the PLC refuses of a group: place in the PLC (``DB1.4``, a node, a symbol) -> why.
        The PLC is `degraded` while there is any. The same object as long as nothing changes, and
        never changed: it is asked for after every reading that lacks something."""

    def start(self) -> None:
        """Registers with the process's loop, and connects in a later turn."""

    def scan(self, group: int, deadline_s: float) -> bool:
        """Asks for a group's values: true where ``complete`` follows, once, unless ``lost`` or
        ``connected`` comes first; false where nothing does, there being no connection, or the
        answer having been given before this returns. The engine asks again only when the answer is
        there, and counts an overrun otherwise.

        ``deadline_s`` (monotonic): by then the next is due; who is due first goes first. May call
        ``complete`` or ``lost`` before it returns. A subscribed group answers at once with what it
        holds, so that `max_silence` is kept.
        """

    def close(self) -> None:
        """Ends the connection; waits for a second at most."""
