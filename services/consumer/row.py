"""A stored message as a consumer takes it."""

from __future__ import annotations

from dataclasses import dataclass

from bus.frames import GAP_ROW

# No message of CONTRACT §4: without epoch and seq, so nobody can tell one from its repeat. Only a
# consumer at the centre that asks for them gets such rows.
OTHER_ROW = 2


@dataclass(slots=True, eq=False)
class Row:
    """One stored message."""

    session: int
    lane: str
    order: int
    """Counts arrivals in this process: what goes back to a queue keeps its place."""
    position: int
    kind: int
    plc: str
    locatario: str
    ts_ms: int
    epoch: int
    seq: int
    body: bytes
    done: bool = False
    reason: str = ""
    """Why it is refused for ever; "" where it is not."""
    end: int = 0
    """For outputs that write to a stream: where it ends there."""

    @property
    def topic(self) -> str:
        """Where it belongs (CONTRACT §4)."""
        topic = f"plc/{self.locatario}/{self.plc}"
        return f"{topic}/gap" if self.kind == GAP_ROW else topic
