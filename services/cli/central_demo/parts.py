"""Starting what listens, and waiting for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from services.cli.central_demo.broker import ADDRESS
from services.cli.children import Children
from services.runtime.errors import PlcEdgeError

T = TypeVar("T")
STARTS_S = 30.0


def wait_for(what: Callable[[], T | None], within_s: float) -> T | None:
    """The first true answer; None where there is none in that time."""
    end_s = time.monotonic() + within_s
    while not (answer := what()):
        if time.monotonic() > end_s:
            return None
        time.sleep(0.2)
    return answer


def start_listening(
    children: Children,
    name: str,
    command: Sequence[str],
    port: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Returns when it listens. Raises PlcEdgeError with its last words."""
    child = children.start(name, command, environment)

    def listens() -> bool:
        if child.poll() is not None:
            raise PlcEdgeError(f"{name} ended:\n{children.tail(name)}")
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex((ADDRESS, port)) == 0

    if not wait_for(listens, STARTS_S):
        tail = children.tail(name)
        raise PlcEdgeError(f"{name} does not listen at port {port} in {STARTS_S:.0f} s:\n{tail}")
