"""A reader's engine on a loop that a test turns, its source a library in a thread that the test
writes; the real keep client and ring, and no store.

    with EngineRig(tmp_path, serve, groups=[tags("g1", "a", "b")]) as rig:
        rig.until(lambda: rig.messages)
        rig.messages[-1]["values"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from services.protocols.line import Line
from services.protocols.threaded import ThreadSource
from services.reader.engine import Engine
from services.reader.keep import KeepClient
from services.runtime.process import Process

PLC = "p1"


def tags(name: str, *fields: str, **more: Any) -> dict[str, Any]:
    """A rendered group of INT tags; ``more`` overrides its keys."""
    return {
        "name": name, "measurement": "m", "db": None, "scan_s": 0.05, "publish": "on_change",
        "max_silence_s": 60.0, "timestamp": None, "timezone": None, "machines": [[None, 0]],
        "fields": [{"name": f, "type": "INT", "area": "TAG", "tag": {"node": f"n={f}"}}
                   for f in fields],
        **more,
    }  # fmt: skip


class _Process(Process):
    def __init__(self, config: dict[str, Any], file: Path) -> None:
        super().__init__(config, file)
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, level: str, code: str, text: str, **fields: Any) -> None:
        self.events.append((code, {"level": level, "text": text, **fields}))
        super().event(level, code, text, **fields)


class _Keep(KeepClient):
    def __init__(self, process: Process) -> None:
        super().__init__(process, PLC, "acme")
        self.messages: list[dict[str, Any]] = []

    def publish(self, ts_ms: int, make_body: Callable[[int, int], bytes]) -> bytes:
        body = super().publish(ts_ms, make_body)
        self.messages.append(orjson.loads(body))
        return body


class EngineRig:
    """One PLC."""

    def __init__(
        self,
        folder: Path,
        serve: Callable[[str, Line], None],
        groups: Sequence[dict[str, Any]],
        hosts: Sequence[str] = ("h1",),
        timeout_s: float = 0.4,
    ) -> None:
        plc = {"id": PLC, "locatario": "acme", "protocol": "test", "hosts": list(hosts),
               "timeout_s": timeout_s, "heartbeat_s": 10.0}  # fmt: skip
        config = {"process": f"reader-{PLC}", "folder": "reader", "item": PLC, "site": "s1",
                  "runtime": str(folder), "state": str(folder), "plc": plc,
                  "groups": list(groups), "clock_sync": "ignored"}  # fmt: skip
        self.process = _Process(config, folder / "reader.json")
        self.keep = _Keep(self.process)
        self.keep.open()
        self.engine = Engine(
            self.process, self.keep, lambda process, user: ThreadSource(process, user, serve)
        )

    def __enter__(self) -> Self:
        self.engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.engine.close()
        self.process.bus.close()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All that was numbered."""
        return self.keep.messages

    @property
    def codes(self) -> list[str]:
        """Of all events."""
        return [code for code, _ in self.process.events]

    def step(self) -> None:
        """A turn of the loop; it waits for a few ms at most."""
        self.process.at(time.monotonic() + 0.005, lambda: None)
        self.process.step()

    def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Turns the loop until it holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, (self.messages[-3:], self.codes)
            self.step()

    def turn_for(self, seconds: float) -> None:
        """Turns the loop for so long."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end_s, seconds + 10)

    def metric(self, name: str) -> float:
        """The sum of a counter or gauge over its labels."""
        frame = self.process.stats.frame()
        return float(sum(value for _, found, _, value in frame.samples if found == name))
