"""Waiting for what was started."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
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


def wait_listening(children: Children, ports: Mapping[str, int]) -> None:
    """Returns when each of these listens at its port. Raises PlcEdgeError with its last words."""
    for name, port in ports.items():
        if not wait_for(partial(_listens, children, port), STARTS_S):
            words = f"{name} does not listen at port {port} in {STARTS_S:.0f} s"
            raise PlcEdgeError(f"{words}:\n{children.tail(name)}")


def _listens(children: Children, port: int) -> bool:
    children.check()
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((ADDRESS, port)) == 0
