"""Tells receivers: from the durable queue, one lane each, so that one that fails delays no other.

At least once: what was sent and not noted as sent (the process died) is sent again under its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from services.alerts.board_lane import BoardLane
from services.alerts.memory import Memory
from services.alerts.receivers import receiver
from services.runtime.background import Background
from services.runtime.errors import Refused, Unavailable
from services.runtime.process import Process

# After an attempt that failed: 1 s, doubling.
RETRY_S, RETRY_MAX_S = 1.0, 60.0


class _Lane:
    """One receiver's notifications, in order, one under way."""

    def __init__(
        self, process: Process, memory: Memory, background: Background, config: dict[str, Any]
    ) -> None:
        self.name: str = config["name"]
        self._process = process
        self._memory = memory
        self._background = background
        self._send: Callable[[dict[str, Any], bytes], None] = receiver(config)
        self._busy = False
        self._failures = 0
        self._told: int | None = None
        """Sent, but that could not be written."""

    def wake(self) -> None:
        """Sends the next, if none is under way."""
        if self._busy:
            return
        waiting = self._memory.next(self.name)
        pending = self._process.stats.gauge
        pending("plc_edge_alert_notifications_pending", receiver=self.name).set(
            self._memory.waiting(self.name)
        )
        if waiting is None:
            return
        self._busy = True
        number, body = waiting
        if number == self._told:
            self._done(number, None)
            return
        notification = orjson.loads(body)
        self._background.run(
            lambda: self._send(notification, body), lambda result: self._done(number, result)
        )

    def _done(self, number: int, result: Any) -> None:
        if isinstance(result, Exception) and not isinstance(result, Refused):
            self._failed(result)
            return
        self._told = number
        self._count("refused" if result else "ok")
        if result:
            text = f"{self.name} refuses a notification for ever: {result}"
            self._process.event("error", "notification_refused", text)
        if self._failures and not result:
            self._process.event("info", "receiver_ok", f"{self.name} takes notifications again")
        self._failures = 0
        if self._memory.told(self.name, number):
            self._again()
        else:  # sent again only where this process dies before the disk has room
            self._process.at(time.monotonic() + RETRY_MAX_S, self._again)

    def _failed(self, error: Exception) -> None:
        self._count("failed")
        self._failures += 1
        if self._failures == 1:
            why = error.message if isinstance(error, Unavailable) else repr(error)
            self._process.event("warning", "receiver_failed", f"{self.name}: {why}")
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._failures - 1, 10))
        self._process.at(time.monotonic() + pause_s, self._again)

    def _again(self) -> None:
        self._busy = False
        self.wake()

    def _count(self, result: str) -> None:
        counter = self._process.stats.counter
        counter("plc_edge_alert_notifications_total", receiver=self.name, result=result).inc()


class Notifier:
    """All lanes."""

    def __init__(self, process: Process, memory: Memory, receivers: list[dict[str, Any]]) -> None:
        background = Background(process)
        self._lanes: list[_Lane | BoardLane] = [
            (BoardLane if r["type"] == "mqtt" else _Lane)(process, memory, background, r)
            for r in receivers
        ]

    def open(self) -> None:
        """Goes on with what an earlier life has left."""
        self.wake()

    def wake(self) -> None:
        """There may be something to tell."""
        for lane in self._lanes:
            lane.wake()

    def close(self) -> None:
        """Says goodbye to brokers."""
        for lane in self._lanes:
            if isinstance(lane, BoardLane):
                lane.close()
