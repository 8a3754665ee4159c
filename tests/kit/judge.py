"""What every run of a whole box is judged by, message by message as they arrive.

Every number of every sequence from 1 to the last one that was delivered has been delivered or is in
a gap, head and tail included (the caller drains first: then the last one is the newest there is).
First deliveries are in order; what comes again is equal to what came before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

Place = tuple[str, int, int]
"""PLC, epoch, seq."""


@dataclass
class Judge:
    """``take`` every message; then look at the rest."""

    repeats: int = 0
    changed: int = 0
    """Repeats that are not equal to the first delivery."""
    uncertain: int = 0
    """Messages whose quality is not good."""
    disordered: list[Place] = field(default_factory=list)
    newest_ts_ms: dict[str, int] = field(default_factory=dict)
    """PLC -> time of the newest message."""
    _last: dict[str, tuple[int, int]] = field(default_factory=dict)
    _bodies: dict[tuple[str, int], dict[int, int]] = field(default_factory=dict)
    _told: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    told_twice: int = 0
    """Numbers that two quota notices name."""
    _notices: dict[tuple[str, int], set[bytes]] = field(default_factory=dict)
    _withheld: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def take(self, topic: str, payload: bytes) -> None:
        """Any message of the broker; heartbeats and the box's own are passed over."""
        levels = topic.split("/")
        if levels[0] != "plc" or levels[3:] == ["heartbeat"]:
            return
        message = orjson.loads(payload)
        plc, epoch = message["plc_id"], message["epoch"]
        if levels[3:] == ["gap"] and message["reason"] == "quota":
            notices = self._notices.setdefault((plc, epoch), set())
            if payload not in notices:  # a repeat is the same to the byte
                notices.add(payload)
                withheld = self._withheld.setdefault((plc, epoch), set())
                runs = message.get("seqs") or [[message["first_seq"], message["last_seq"]]]
                named = {s for a, b in runs for s in range(a, b + 1)}
                self.told_twice += len(named & withheld)
                withheld |= named
            return
        if levels[3:] == ["gap"]:
            if message["last_seq"] is not None:
                seqs = range(message["first_seq"], message["last_seq"] + 1)
                self._told.setdefault((plc, epoch), set()).update(seqs)
            return
        seq = message["seq"]
        bodies = self._bodies.setdefault((plc, epoch), {})
        if seq in bodies:
            self.repeats += 1
            self.changed += bodies[seq] != hash(payload)
            return
        bodies[seq] = hash(payload)
        if (epoch, seq) <= self._last.get(plc, (0, 0)):
            self.disordered.append((plc, epoch, seq))
        self._last[plc] = max((epoch, seq), self._last.get(plc, (0, 0)))
        self.newest_ts_ms[plc] = max(message["ts"], self.newest_ts_ms.get(plc, 0))
        self.uncertain += message["quality"] != "good"

    @property
    def delivered(self) -> int:
        """Different messages."""
        return sum(len(bodies) for bodies in self._bodies.values())

    @property
    def acquired(self) -> int:
        """Numbers that the readers gave, as far as the last of each sequence tells."""
        return sum(max(bodies) for bodies in self._bodies.values())

    @property
    def epochs(self) -> int:
        """Sequences that were seen: one a PLC, unless a reader's ring was lost."""
        return len(self._bodies)

    @property
    def told(self) -> int:
        """Messages that only a gap message speaks of."""
        return sum(len(seqs - self._bodies.get(key, {}).keys()) for key, seqs in self._told.items())

    @property
    def withheld(self) -> int:
        """Messages that a quota notice names."""
        return sum(map(len, self._withheld.values()))

    @property
    def both(self) -> list[Place]:
        """Named by a quota notice, and delivered all the same."""
        return [(*key, s) for key, seqs in self._withheld.items()
                for s in sorted(seqs & self._bodies.get(key, {}).keys())]  # fmt: skip

    @property
    def lost(self) -> list[Place]:
        """Neither delivered nor told of."""
        out = []
        for key, bodies in self._bodies.items():
            told = self._told.get(key, set()) | self._withheld.get(key, set())
            missing = (s for s in range(1, max(bodies) + 1) if s not in bodies and s not in told)
            out += [(*key, s) for s in missing]
        return out
