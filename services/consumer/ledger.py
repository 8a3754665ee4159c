"""Which rows are on their way, and up to where each lane is settled. Pure: no sockets, no clock.

Rules of the dispatch wire: a receipt names the contiguous prefix; rows that come again are sent
again only when this session has not settled them; a row in flight is not taken twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count

from bus.frames import Receipt
from services.consumer.row import Row

Wired = tuple[int, int, str, str, int, int, int, bytes]

# How many windows of settled rows a session remembers by identity.
REMEMBERED_WINDOWS = 8


class PositionsChanged(Exception):
    """The store counts from elsewhere than before (its files were lost): start a new session."""


class _Lane:
    """One lane of one session."""

    def __init__(self) -> None:
        self.settled = -1
        self.flying: deque[Row] = deque()
        self.last = -1
        """Highest position taken."""
        self.known: dict[int, tuple[str, int, int]] = {}
        """Position -> (plc, epoch, seq), of all in flight and of the last settled."""
        self.letters: dict[int, str] = {}
        """Those of them that were refused, and why."""
        self.refused: list[tuple[int, str]] = []
        self.dirty = False


class Ledger:
    """The rows of one session."""

    def __init__(self, output: str, window: int) -> None:
        self._output = output
        self._window = window
        self._orders = count()
        self.session = 0
        self._lanes: dict[str, _Lane] = {}

    def begin(self, session: int) -> None:
        """Forgets all and counts under another number; what still flies settles nothing, what was
        not sent yet need not be: the store gives it again.
        """
        for lane in self._lanes.values():
            for row in lane.flying:
                row.done = True
        self.session = session
        self._lanes = {}

    @property
    def flying(self) -> int:
        """Rows taken and not yet settled."""
        return sum(len(lane.flying) for lane in self._lanes.values())

    def take(self, lane_name: str, rows: Sequence[Wired]) -> list[Row]:
        """The rows that must be sent now; the others are in flight or settled already.

        Raises PositionsChanged when a position is not what this session settled under it: to
        receipt it unsent would lose it.
        """
        lane = self._lanes.setdefault(lane_name, _Lane())
        new = []
        for wired in rows:
            position, identity = wired[0], (wired[2], wired[5], wired[6])
            if position > lane.last:
                lane.last = position
                lane.known[position] = identity
                row = Row(self.session, lane_name, next(self._orders), *wired)
                lane.flying.append(row)
                new.append(row)
            elif lane.known.get(position) != identity:
                raise PositionsChanged
            elif position <= lane.settled:
                if position in lane.letters:
                    lane.refused.append((position, lane.letters[position]))
                lane.dirty = True
        return new

    def settle(self, row: Row, reason: str = "") -> bool:
        """Marks a row; False where it belongs to an earlier session or was settled before."""
        if row.done:
            return False
        row.done = True
        row.reason = reason
        lane = self._lanes[row.lane]
        flying = lane.flying
        while flying and flying[0].done:
            first = flying.popleft()
            lane.settled = first.position
            lane.dirty = True
            if first.reason:
                lane.letters[first.position] = first.reason
                lane.refused.append((first.position, first.reason))
        while len(lane.known) - len(flying) > REMEMBERED_WINDOWS * self._window:
            oldest = next(iter(lane.known))
            del lane.known[oldest]
            lane.letters.pop(oldest, None)
        return True

    def receipts(self) -> list[Receipt]:
        """What is settled and not yet said; say ``sent`` of each that was taken."""
        return [
            Receipt(self._output, self.session, name, lane.settled, lane.refused)
            for name, lane in self._lanes.items()
            if lane.dirty
        ]

    def sent(self, receipt: Receipt) -> None:
        """The wire took a receipt. If the store dies with it, the rows come again."""
        lane = self._lanes[receipt.lane]
        lane.dirty = False
        lane.refused = []
