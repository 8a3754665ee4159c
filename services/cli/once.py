"""A PLC whose fields are tags, read once by its reader's source, on a loop of its own."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from services.protocols.source import Lost, Reading
from services.runtime import render
from services.runtime.errors import PlcUnavailable
from services.runtime.plc_model import PlcBase
from services.runtime.process import Process
from services.runtime.site import Site

# A subscription's first values may take so long besides the PLC's own time-out.
FIRST_VALUES_S = 8.0
TURN_S = 0.05


@dataclass(slots=True)
class Once:
    """What came of it."""

    host: str = ""
    """The address that was read, or tried last."""
    text: str = ""
    """The connection, in the protocol's words."""
    frozen: str = ""
    """Why the data may be frozen; empty where it is not."""
    readings: dict[int, Reading] = field(default_factory=dict)
    """By group."""
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """(level, code, text) of what a reader would have told."""


def read_once(site: Site, plc: PlcBase, host: str | None = None) -> Once:
    """Every group, at ``host`` or the first of its addresses that gives a connection; waits as long
    as a reader would. Raises PlcUnavailable, or ConfigError where the source cannot begin.
    """
    config = render.render(site)[f"reader-{plc.id}"]
    if host is not None:
        config["plc"]["hosts"] = [host]
    with tempfile.TemporaryDirectory(prefix="plc-edge-") as folder:
        return _Asker({**config, "runtime": folder}).ask()


class _Quiet(Process):
    """Keeps its events."""

    def __init__(self, config: dict[str, Any], events: list[tuple[str, str, str]]) -> None:
        super().__init__(config, Path(config["runtime"]) / "conf")
        self._events = events

    def event(self, level: str, code: str, text: str, **fields: Any) -> None:
        """Something a person wants to know."""
        self._events.append((level, code, text))


class _Asker:
    """``User`` of services/protocols/source.py."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._once = Once()
        self._groups = range(len(config["groups"]))
        self._wait_s = 2 * config["plc"]["timeout_s"] + FIRST_VALUES_S
        self._error: PlcUnavailable | None = None
        self._asked: set[int] = set()
        self._process = _Quiet(config, self._once.events)
        name = f"services.protocols.{config['plc']['protocol']}.source"
        self._source = import_module(name).open_source(self._process, self)

    def ask(self) -> Once:
        """Turns the loop until every group has been read."""
        once, end_s = self._once, time.monotonic() + self._wait_s
        self._source.start()
        try:
            while self._error is None and len(once.readings) < len(self._groups):
                if time.monotonic() > end_s:
                    text = f"{self._source.host}: not everything was read within {self._wait_s:g} s"
                    raise PlcUnavailable("timeout", text)
                self._process.at(time.monotonic() + TURN_S, self.may_read)
                self._process.step()
            if self._error is not None:
                raise self._error
            once.host, once.frozen = self._source.host, self._source.frozen
            return once
        finally:
            self._source.close()
            self._process.bus.close()

    def connected(self) -> None:
        """Nothing that was asked before comes any more."""
        self._asked.clear()

    def may_read(self) -> None:
        """Asks for what has not come."""
        for group in self._groups:
            is_due = group not in self._once.readings and group not in self._asked
            if is_due and self._source.scan(group, float("inf")):
                self._asked.add(group)

    def answered(self, text: str) -> None:
        """The PLC gives values."""
        self._once.text = text

    def complete(self, group: int, reading: Reading) -> None:
        """Keeps the first of each group."""
        self._once.readings.setdefault(group, reading)

    def changes_lost(self, group: int, lost: Lost) -> None:
        """Nobody asked for changes."""

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """The last address counts."""
        self._once.host = host
        if not self._source.is_switching:
            self._error = error

    def state_changed(self) -> None:
        """It is asked at the end."""
