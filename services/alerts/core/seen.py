"""Which numbers of one PLC's sequences were seen: a repeat changes nothing."""

from __future__ import annotations

from typing import Any

# Holes kept per sequence (a store's backfill lane fills one from below), and sequences per PLC.
MAX_RUNS = 32
MAX_EPOCHS = 4


class Seen:
    """Runs of consecutive numbers per epoch; bounded: beyond it the oldest count as seen."""

    def __init__(self) -> None:
        self.epochs: dict[int, list[list[int]]] = {}
        """epoch → runs [first, last], ascending; the last run holds the newest number."""
        self.newest = (0, 0)
        """(epoch, seq)."""
        self._tail = [0, 0]

    def add(self, epoch: int, seq: int) -> bool:
        """Notes a number; False for a repeat."""
        if epoch == self.newest[0] and seq == self._tail[1] + 1:  # nearly always
            self._tail[1] = seq
            self.newest = (epoch, seq)
            return True
        runs = self.epochs.get(epoch)
        if runs is None:
            if len(self.epochs) >= MAX_EPOCHS and epoch < min(self.epochs):
                return False
            runs = self.epochs[epoch] = []
            while len(self.epochs) > MAX_EPOCHS:
                del self.epochs[min(self.epochs)]
        if not _insert(runs, seq):
            return False
        if len(runs) > MAX_RUNS:
            runs[0:2] = [[runs[0][0], runs[1][1]]]
        if (epoch, seq) > self.newest:
            self.newest = (epoch, seq)
        self._tail = self.epochs[self.newest[0]][-1]
        return True

    def whole(self) -> bool:
        """Whether the current sequence has no hole."""
        return len(self.epochs.get(self.newest[0], ())) <= 1

    def dump(self) -> list[Any]:
        """Plain data."""
        return [[epoch, [list(r) for r in runs]] for epoch, runs in self.epochs.items()]

    def restore(self, data: list[Any]) -> None:
        """What ``dump`` gave."""
        self.epochs = {epoch: [list(r) for r in runs] for epoch, runs in data}
        if self.epochs:
            epoch = max(self.epochs)
            self._tail = self.epochs[epoch][-1]
            self.newest = (epoch, self._tail[1])


def _insert(runs: list[list[int]], seq: int) -> bool:
    at = len(runs)
    while at and runs[at - 1][0] > seq:
        at -= 1
    if at and seq <= runs[at - 1][1]:
        return False
    joins_left = bool(at) and runs[at - 1][1] == seq - 1
    joins_right = at < len(runs) and runs[at][0] == seq + 1
    if joins_left and joins_right:
        runs[at - 1 : at + 1] = [[runs[at - 1][0], runs[at][1]]]
    elif joins_left:
        runs[at - 1][1] = seq
    elif joins_right:
        runs[at][0] = seq
    else:
        runs.insert(at, [seq, seq])
    return True
