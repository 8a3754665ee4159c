"""One PLC: its sequence, its series, its alarms."""

from __future__ import annotations

from collections.abc import Iterator

from services.alerts.core.context import Box
from services.alerts.core.leaf import Leaf
from services.alerts.core.seen import Seen
from services.alerts.core.transition import Place
from services.alerts.core.watch import Watch


class Stream:
    """One group's record: the fields that come in one message."""

    __slots__ = ("fields", "group", "hold_ms", "leaves", "machine", "past", "signs")

    def __init__(self, group: str, machine: str, hold_ms: int, past: bool) -> None:
        self.group = group
        self.machine = machine
        self.hold_ms = hold_ms
        self.past = past
        self.fields: dict[str, list[Leaf]] = {}
        """Field → conditions on it; empty where no rule wants it."""
        self.leaves: list[Leaf] = []
        """All of them."""
        self.signs: list[Leaf] = []
        """Conditions that any good value of the record is a sign for."""

    def add(self, field: str, leaf: Leaf) -> None:
        """A condition on a field."""
        leaf.hold_ms = max(leaf.hold_ms, self.hold_ms)
        self.fields[field].append(leaf)
        self.leaves.append(leaf)

    def set_hold(self, hold_ms: int) -> None:
        """Values of this record are held for so long."""
        if hold_ms != self.hold_ms:
            self.hold_ms = hold_ms
            for leaf in self.leaves:
                leaf.hold_ms = hold_ms


class Plc:
    """Everything known of one PLC."""

    __slots__ = (
        "_watches", "alive", "beat_ms", "beats", "box", "key", "late_at", "locatario", "name",
        "past", "seen", "several", "streams", "ts",
    )  # fmt: skip

    def __init__(self, locatario: str, name: str, box: Box | None) -> None:
        self.locatario = locatario
        self.name = name
        self.key = (locatario, name)
        self.box = box
        self.seen = Seen()
        self.ts = 0
        """Of the newest message in order."""
        self.late_at: int | None = None
        """When the last message came, if that belonged to a backlog."""
        self.beat_ms = 0
        """Of the last heartbeat."""
        self.streams: dict[tuple[str, str], Stream] = {}
        """By (group, machine)."""
        self.past: dict[tuple[str, str], Stream] = {}
        """The same for what comes behind its turn."""
        self.several: dict[tuple[str, str], Watch] = {}
        """Alarms of several conditions, by (rule, machine)."""
        self.alive: list[Leaf] = []
        """Conditions that any sign of life of the PLC is one for."""
        self.beats: list[Leaf] = []
        """Conditions that any heartbeat is a sign for."""
        self._watches: dict[tuple[str, tuple[str, ...], bool], Watch] = {}

    @property
    def site(self) -> str:
        """The box it belongs to; empty where no message says it."""
        return self.box.name if self.box is not None else ""

    def add(self, watch: Watch) -> None:
        """One of its alarms."""
        self._watches[_key(watch)] = watch

    def join(self, watch: Watch, i: int) -> None:
        """Condition ``i`` waits for signs of life, or for heartbeats."""
        of = watch.rule.conditions[i].of
        (self.beats if of == "heartbeat" else self.alive).append(watch.leaves[i])

    def watches(self) -> Iterator[Watch]:
        """Its alarms, history included."""
        yield from list(self._watches.values())

    def find(self, rule: str, place: Place) -> Watch | None:
        """The alarm of a rule at a place, history aside."""
        return self._watches.get((rule, place.key, False))

    def machines_of(self, rule: str) -> list[str]:
        """Machines that have an alarm of that rule of several conditions."""
        return [machine for name, machine in self.several if name == rule]

    def drop(self, watch: Watch) -> None:
        """Forgets an alarm."""
        self._watches.pop(_key(watch), None)
        mine = set(map(id, watch.leaves))
        for leaves in (self.alive, self.beats):
            leaves[:] = [leaf for leaf in leaves if id(leaf) not in mine]
        for stream in self.streams.values():
            for leaves in (*stream.fields.values(), stream.leaves, stream.signs):
                leaves[:] = [leaf for leaf in leaves if id(leaf) not in mine]
        if self.box is not None:
            self.box.signs[:] = [s for s in self.box.signs if id(s[1]) not in mine]

    def forget_past(self) -> None:
        """The backlog has closed its hole: what still rings in it is told by the live state."""
        for stream in self.past.values():
            for leaf in stream.leaves:
                leaf.watch.close(leaf.seen, "replay")
        self._watches = {key: watch for key, watch in self._watches.items() if not watch.past}
        self.past.clear()


def _key(watch: Watch) -> tuple[str, tuple[str, ...], bool]:
    return watch.rule.name, watch.place.key, watch.past
