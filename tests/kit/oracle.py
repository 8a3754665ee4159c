"""What every fault test is judged by: {acquired} = {delivered} ∪ {in a gap}, no wrong value, first
deliveries in order, duplicates within bounds. Head and tail included.

Each message carries a number of its own (``n`` in its values), so that identity, order and content
are checked against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Gaps:
    """What gap messages have told of one (PLC, epoch)."""

    ranges: list[tuple[int, int | None]] = field(default_factory=list)

    def holds(self, seq: int) -> bool:
        return any(first <= seq and (last is None or seq <= last) for first, last in self.ranges)


class Oracle:
    """``acquire`` at the source, ``deliver`` at the destination, ``check`` at the end."""

    def __init__(self) -> None:
        self.acquired: dict[int, tuple[str, int, int]] = {}
        self.delivered: dict[int, tuple[str, int, int]] = {}
        self.gaps: dict[tuple[str, int], Gaps] = {}
        self.duplicates = 0
        self.wrong: list[str] = []
        self._owner: dict[tuple[str, int, int], int] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._next = 0

    def message(self, plc: str, pad: int = 40) -> Callable[[int, int], bytes]:
        """The next message of a PLC, counted as acquired when it gets its number."""
        self._next += 1
        n = self._next

        def make(epoch: int, seq: int) -> bytes:
            self.acquired[n] = (plc, epoch, seq)
            return b'{"plc_id":"%s","epoch":%d,"seq":%d,"n":%d,"pad":"%s"}' % (
                plc.encode(), epoch, seq, n, _pad(n, pad),
            )  # fmt: skip

        return make

    def deliver(self, body: bytes, is_gap: bool = False) -> None:
        """One message at the destination."""
        try:
            m: dict[str, Any] = orjson.loads(body)
        except ValueError:
            self.wrong.append(f"not JSON: {body[:60]!r}")
            return
        if is_gap:
            gaps = self.gaps.setdefault((m["plc_id"], m["epoch"]), Gaps())
            gaps.ranges.append((m["first_seq"], m["last_seq"]))
            return
        key, n = (m["plc_id"], m["epoch"], m["seq"]), m["n"]
        if m["pad"].encode() != _pad(n, len(m["pad"])) or n not in self.acquired:
            self.wrong.append(f"{key} arrived changed")
        if self._owner.setdefault(key, n) != n:
            self.wrong.append(f"{key} is both message {self._owner[key]} and message {n}")
        if n in self.delivered:
            self.duplicates += 1
            return
        self.delivered[n] = key
        if key[1:] <= self._newest.get(key[0], (0, 0)):
            self.wrong.append(f"{key} came after {self._newest[key[0]]}")
        self._newest[key[0]] = key[1:]

    def missing(self) -> list[tuple[int, tuple[str, int, int]]]:
        """(n, identity) of what was neither delivered nor told of in a gap."""
        return [
            (n, key)
            for n, key in self.acquired.items()
            if n not in self.delivered
            and not ((gaps := self.gaps.get(key[:2])) and gaps.holds(key[2]))
        ]

    def check(self, duplicates: int | None = None) -> None:
        """Fails where a promise is broken."""
        assert not self.wrong, self.wrong[:5]
        missing = self.missing()
        assert not missing, f"{len(missing)} of {len(self.acquired)} lost: {missing[:5]}"
        if duplicates is not None:
            assert self.duplicates <= duplicates, f"{self.duplicates} repeats, {duplicates} allowed"


def _pad(n: int, size: int) -> bytes:
    return (b"%d." % (n * 2654435761 % 2**32) * (size // 2 + 1))[:size]
