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
    by_quota: list[int] = field(default_factory=list)
    """Seqs that quota notices name, one by one."""
    notices: set[bytes] = field(default_factory=set)

    def holds(self, seq: int) -> bool:
        return any(first <= seq and (last is None or seq <= last) for first, last in self.ranges)


class Oracle:
    """``acquire`` at the source, ``deliver`` at the destination, ``check`` at the end."""

    def __init__(self) -> None:
        self.acquired: dict[int, tuple[str, int, int]] = {}
        self.delivered: dict[int, tuple[str, int, int]] = {}
        self.gaps: dict[tuple[str, int], Gaps] = {}
        self.duplicates = 0
        self.told = 0
        """Sum of the counts of gap messages, repeats included."""
        self.ahead = 0
        """Quota notices that came before any newer message."""
        self.wrong: list[str] = []
        self._owner: dict[tuple[str, int, int], int] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._next = 0

    def message(self, plc: str, pad: int = 40, more: str = "") -> Callable[[int, int], bytes]:
        """The next message of a PLC, counted as acquired when it gets its number; ``more``: members
        of it beside.
        """
        self._next += 1
        n = self._next

        def make(epoch: int, seq: int) -> bytes:
            self.acquired[n] = (plc, epoch, seq)
            return b'{"plc_id":"%s","epoch":%d,"seq":%d,"n":%d,"pad":"%s"%s}' % (
                plc.encode(), epoch, seq, n, _pad(n, pad), more.encode(),
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
            self.told += m["count"] or 0
            gaps = self.gaps.setdefault((m["plc_id"], m["epoch"]), Gaps())
            if "seqs" in m and body not in gaps.notices:  # a repeat is the same to the byte
                gaps.notices.add(body)
                found = [seq for first, last in m["seqs"] for seq in range(first, last + 1)]
                self.ahead += (m["epoch"], m["last_seq"]) > self._newest.get(m["plc_id"], (0, 0))
                told = (min(found), max(found), len(found))
                if told != (m["first_seq"], m["last_seq"], m["count"]):
                    self.wrong.append(f"a notice contradicts itself: {m}")
                gaps.ranges += m["seqs"]
                gaps.by_quota += found
            elif "seqs" not in m:
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

    def check_quota(self) -> int:
        """What was withheld: told once, and never delivered; how many."""
        delivered = set(self.delivered.values())
        for (plc, epoch), gaps in self.gaps.items():
            assert len(gaps.by_quota) == len(set(gaps.by_quota)), "told twice"
            both = [seq for seq in gaps.by_quota if (plc, epoch, seq) in delivered]
            assert not both, f"{plc}: withheld and delivered: {both[:5]}"
        return sum(len(gaps.by_quota) for gaps in self.gaps.values())

    def check(self, duplicates: int | None = None) -> None:
        """Fails where a promise is broken."""
        assert not self.wrong, self.wrong[:5]
        missing = self.missing()
        assert not missing, f"{len(missing)} of {len(self.acquired)} lost: {missing[:5]}"
        if duplicates is not None:
            assert self.duplicates <= duplicates, f"{self.duplicates} repeats, {duplicates} allowed"


def _pad(n: int, size: int) -> bytes:
    return (b"%d." % (n * 2654435761 % 2**32) * (size // 2 + 1))[:size]
