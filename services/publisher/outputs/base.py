"""What every kind of output is: it takes rows, and says of each that it arrived or never will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.consumer.row import Row
from services.mqtt.desk import Desk as Desk


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
