"""What every kind of output is: it takes rows, and says of each that it arrived or never will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.consumer.row import Row


class Desk(Protocol):
    """Where an output reports."""

    def delivered(self, rows: Sequence[Row]) -> None:
        """The destination has them."""

    def refused(self, row: Row, reason: str) -> None:
        """The destination refuses this one for ever: a dead letter. Never for a fault of
        credentials, permission or path: those are held and tried again.
        """

    def held(self, result: str) -> None:
        """A row must be tried again; counted by ``result``, one word."""

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """How the output is: ok, degraded or down, and why in words."""


class Output(Protocol):
    """One destination. Never blocks; keeps the order in which rows came."""

    window: int
    """Rows it takes without having settled them."""
    target: str
    """The destination in words, without secrets."""

    def deliver(self, rows: Sequence[Row]) -> None:
        """Takes rows, never more than ``window`` unsettled ones."""

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Takes a PLC's heartbeat, the last one only; b"" when the PLC is gone."""

    def details(self) -> dict[str, object]:
        """What the State frame tells of it (host, in_flight …)."""

    def close(self) -> None:
        """Says goodbye; waits at most CLOSE_WAIT_S for what is in flight."""


CLOSE_WAIT_S = 1.5
