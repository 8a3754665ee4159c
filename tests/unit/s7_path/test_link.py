"""A PLC that is away for days: when the link tries again, and what waits meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from services.protocols.attempts import BACKOFF_MAX_S, SWITCH_MIN_S
from services.protocols.s7 import link as module
from services.protocols.s7.link import Link
from services.runtime.errors import PlcUnavailable
from services.runtime.stats import Stats

ATTEMPTS = 10_000


class AtOnce:
    """Work that is done when it is given."""

    def __init__(self, _process: object) -> None:
        pass

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = work()
        except PlcUnavailable as e:
            result = e
        done(result)


class Absent:
    """Time goes from one attempt to the next; nobody answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hosts: list[str]) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.tried: list[tuple[float, str]] = []
        monkeypatch.setattr(module, "Background", AtOnce)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(module, "Session", self.connect)
        process = MagicMock(stats=Stats("reader", 1, 1))
        process.at = lambda at_s, fn: self.due.append((at_s, fn))
        plc = {"id": "p1", "hosts": hosts, "port": 102, "local_tsap": 1, "remote_tsap": 2,
               "pdu": 480, "parallel_jobs": "auto", "timeout_s": 1.0}  # fmt: skip
        self.user = MagicMock()
        self.link = Link(process, plc, self.user)
        self.link.start()

    def connect(self, host: str, *_: object, **__: object) -> None:
        self.tried.append((self.now_s, host))
        raise PlcUnavailable("timeout", host)

    def attempts(self, count: int) -> list[float]:
        """The times between so many attempts."""
        for _ in range(count):
            assert len(self.due) == 1, "attempts pile up"
            self.now_s, fn = self.due.pop()
            fn()
        times = [at_s for at_s, _ in self.tried]
        return [b - a for a, b in itertools.pairwise(times)]


def test_days_without_a_plc(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Absent(monkeypatch, ["a"])
    waits_s = absent.attempts(ATTEMPTS)
    assert absent.now_s > 86_400
    assert 0.25 <= waits_s[0] <= 0.5
    # It grows up to BACKOFF_MAX_S and stays there, and no two readers keep step.
    assert all(BACKOFF_MAX_S / 2 <= s <= BACKOFF_MAX_S for s in waits_s[5:])
    assert len(set(waits_s)) > ATTEMPTS / 2
    assert absent.link.attempts.count == ATTEMPTS
    assert not absent.link.attempts.is_switching


def test_days_without_any_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Absent(monkeypatch, ["a", "b"])
    waits_s = absent.attempts(ATTEMPTS)
    hosts = [host for _, host in absent.tried]
    assert hosts == ["a", "b"] * (ATTEMPTS // 2)
    # The second is tried at once, but not in a tight loop: each round waits.
    rounds_s = [x + y for x, y in zip(waits_s[::2], waits_s[1::2], strict=False)]
    assert all(BACKOFF_MAX_S / 2 <= s <= 2 * BACKOFF_MAX_S for s in rounds_s[20:])
    switches = [
        at_s for (at_s, _), wait_s in zip(absent.tried, waits_s, strict=False) if not wait_s
    ]
    assert switches
    assert all(b - a >= SWITCH_MIN_S for a, b in itertools.pairwise(switches))
