"""One scan group: its records made into messages, as far as they are news."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.protocols.source import Reading
from services.reader.message import Message
from services.reader.plc_clock import PlcClock
from services.s7.change import ChangeFilter
from services.s7.field import Field


@dataclass(slots=True)
class Outcome:
    """What one scan of a group made."""

    ts_ms: int
    latency_ms: float
    quality: str
    bodies: list[Callable[[int, int], bytes]]
    """Messages to publish."""
    shown: list[Callable[[int, int], bytes]]
    """Messages for the panel: every record, published or not."""
    bad_fields: int


class _Machine:
    """One record of the group."""

    def __init__(self, message: Message, filter: ChangeFilter) -> None:
        self.message = message
        self.filter = filter


class Group:
    """Turns readings of one group into messages."""

    def __init__(self, config: dict[str, Any], plc: dict[str, Any], site: str) -> None:
        self.name: str = config["name"]
        self.scan_s: float = config["scan_s"]
        self._ip: str = plc["hosts"][0]
        self._always = config["publish"] == "always"
        self._timestamp: str | None = config["timestamp"]
        self._clock = PlcClock(config.get("timezone") or "UTC")
        self._published_all = False
        banded = [Field.from_dict(f) for f in config["fields"] if "deadband" in f]
        self._machines = [
            _Machine(
                Message(
                    site=site,
                    locatario=plc["locatario"],
                    plc=plc["id"],
                    ip=self._ip,
                    group=self.name,
                    measurement=config["measurement"],
                    db=config["db"],
                    machine=name,
                ),
                ChangeFilter(banded, config["max_silence_s"], self._timestamp),
            )
            for name, _ in config["machines"]
        ]

    @property
    def has_plc_time(self) -> bool:
        """Its messages carry the PLC's time."""
        return self._timestamp is not None

    def move(self, ip: str) -> None:
        """The messages' ``ip`` from now on."""
        if ip != self._ip:
            self._ip = ip
            for machine in self._machines:
                machine.message.move(ip)

    def publish_all(self) -> None:
        """The next reading publishes every record, changed or not."""
        self._published_all = False

    def take(self, reading: Reading, uncertain: str, now_s: float) -> Outcome:
        """The messages of one reading. ``uncertain`` says why the data may be frozen, or is
        empty.
        """
        ts_ms, latency_ms = reading.ts_ms, reading.latency_ms
        outcome = Outcome(ts_ms, latency_ms, "good", [], [], 0)
        everything = not self._published_all
        for machine, (changed, values, bad) in zip(self._machines, reading.records, strict=True):
            quality, stamp_ms = "good", ts_ms
            if self._timestamp is not None:
                stamp_ms, problem = self._clock.unix_ms(values.get(self._timestamp), ts_ms)
                if problem:
                    quality = "uncertain"
                    bad = {self._timestamp: problem, **bad}
            if uncertain:
                quality = "uncertain"
                bad = {"*": uncertain, **bad}
            if not values and bad:
                quality = "bad"
            outcome.bad_fields += len(bad)
            if quality != "good":
                outcome.quality = quality
            body = machine.message.body(stamp_ms, quality, latency_ms, values, bad)
            outcome.shown.append(body)
            if self._always or machine.filter.passes(values, bad, changed, now_s) or everything:
                outcome.bodies.append(body)
        self._published_all = True
        return outcome

    def offline_bodies(self, ts_ms: int, reason: str) -> list[Callable[[int, int], bytes]]:
        """One message per record that says that nothing could be read."""
        return [m.message.body(ts_ms, "bad", 0.0, {}, {"*": reason}) for m in self._machines]
