"""Where what became of rows is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.consumer.row import Row


class Desk(Protocol):
    """Of one output."""

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
