"""What every part of the kit needs."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import urllib3

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
_FIRST_PORT, _WORKERS = 20_000, 4
BUSY_S = 20
"""What a busy machine is given at least, whatever a quiet one needs: waiting for something shows
that it comes. How soon it comes is asserted apart, by tests marked ``timing``.
"""


def _ports() -> Iterator[int]:
    """Each of this worker's own before any comes again, so that nobody is given one that another
    test has been given and not opened yet.
    """
    # Below those that the kernel gives to clients: a port is still free when its listener is back.
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    size = (end - _FIRST_PORT) // _WORKERS
    first = _FIRST_PORT + worker * size
    return itertools.cycle(random.SystemRandom().sample(range(first, first + size), size))


_PORTS = _ports()


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody uses now, all different."""
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            found.append(port)
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def until(what: Callable[[], T | None], timeout_s: float, why: Callable[[], str] | str) -> T:
    """Polls until ``what()`` is true; its value. Fails with ``why`` after ``timeout_s``, or BUSY_S
    where that is longer. Nobody who answers, no such file: that is "not yet" too.
    """
    timeout_s = max(timeout_s, BUSY_S)
    deadline_s = time.monotonic() + timeout_s
    while True:
        last = ""
        try:
            if value := what():
                return value
        except (OSError, urllib3.exceptions.HTTPError) as e:
            last = f" ({e!r})"
        if time.monotonic() > deadline_s:
            text = why() if callable(why) else why
            raise AssertionError(f"not within {timeout_s} s: {text}{last}")
        time.sleep(0.02)
