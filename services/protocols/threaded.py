"""A source whose library blocks, or has a loop of its own: it lives in a thread of the reader.

A protocol writes one function, ``serve(host, line)``: one connection from its beginning to its end,
in the thread. What it tells goes over the ``Line`` into the process's loop, in order. Attempts,
addresses, time-outs, the order of changes and what a full line means are common.

A blocking library:

    def serve(host: str, line: Line) -> None:
        client = connect(host)                      # raises PlcUnavailable
        line.connected("V3 with TLS")
        while not line.is_closed:
            group = line.asked(timeout_s=1.0)       # None: nothing was asked
            if group is not None:
                began_s = time.monotonic()
                values, bad = client.read(...)
                line.read(group, values, bad, began_s=began_s)

An asyncio one gives ``asyncio.run(talk(host, line))``, with ``line.on_asked =
lambda: loop.call_soon_threadsafe(wake.set)`` and ``line.asked(0)`` until it gives None. It imports
its library inside ``serve``'s module, which only this protocol's readers load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from services.protocols.source import Lost
from services.protocols.tags import Change

# Changes that wait for the process's loop, at most: then only the newest of each tag is kept, and
# what is left out is counted and told (`changes_lost`, ``reader_queue``).
WAITING_MAX = 20_000


class Line(Protocol):
    """One connection's way to and from the process's loop. All calls may come from any thread; none
    waits but ``asked``. After ``is_closed`` whatever is told is dropped.
    """

    is_closed: bool
    """The connection is wanted no more: ``serve`` returns within a second."""
    on_asked: Callable[[], None] | None
    """Called, in another thread, when there is something to take from ``asked``, or on closing."""

    def asked(self, timeout_s: float) -> int | None:
        """The next group to read (a place in ``process.config["groups"]``); None where none is
        asked for within the time, or the line is closed. Only polled groups are asked for.
        """

    def connected(self, text: str) -> None:
        """Reads are taken from now on; ``text`` describes the connection, for the event
        `plc_online`. Subscribed groups: every tag gets a first ``Change``, good or bad.
        """

    def read(
        self,
        group: int,
        values: Mapping[str, Any],
        bad: Mapping[str, str],
        *,
        began_s: float,
        ts_ms: int = 0,
        requests: int = 1,
    ) -> None:
        """The answer to what was asked: every field, by name, in ``values`` (as decoded,
        services/protocols/conform.py) or ``bad``. ``began_s`` (monotonic): when the request left.
        ``ts_ms``: the source's own time; 0: the midpoint of request and now.
        """

    def refused(self, group: int, code: str, text: str, *, began_s: float) -> None:
        """The PLC refuses to answer what was asked as a whole (no right to read), but stays."""

    def changed(self, group: int, changes: Sequence[Change]) -> None:
        """What a subscription brought, each tag's changes in their order."""

    def lost_changes(self, group: int, lost: Lost) -> None:
        """The server says that it has lost some (overflow bit): before the ``changed`` that brings
        what follows."""

    def frozen(self, why: str) -> None:
        """The PLC's state: `cpu_stop`, another word, or empty: it runs."""

    def event(self, level: str, code: str, text: str) -> None:
        """Something a person wants to know: into the log and the panel, once."""


Serve = Callable[[str, Line], None]
"""(host, line). Returns when the line is closed; raises PlcUnavailable(code, text) when the
connection cannot be made or is gone. Another exception is a bug and ends the process."""
