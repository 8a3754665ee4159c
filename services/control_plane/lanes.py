"""Threads for what may wait long, so that it takes none from anybody else.

Every other route runs in anyio's own 40 threads. A check that takes ten seconds, a silent alert
engine, a provider that is down: each has a few of its own instead. Who finds them all taken waits
in the event loop, which costs no thread, and not for long.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import Response

from services.control_plane.problems import Refusal

T = TypeVar("T")
WAIT_S = 0.5
# Of the database's connections (services/control_plane/db.py) no more than these say who asks.
IDENTIFYING = 8
CHECKING, ASKING, SIGNING_IN = 8, 4, 4


class Lane:
    """At most ``threads`` at once."""

    def __init__(self, threads: int) -> None:
        self._places = asyncio.Semaphore(threads)
        self._threads = threads

    @functools.cached_property
    def _limiter(self) -> anyio.CapacityLimiter:
        """The places are the limit; this one only keeps them out of anyio's default."""
        return anyio.CapacityLimiter(self._threads)

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` returns; raises Refusal where no thread is free within ``WAIT_S``."""
        try:
            await asyncio.wait_for(self._places.acquire(), WAIT_S)
        except TimeoutError:
            raise Refusal("busy", retry_after_s=1) from None
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._limiter)
        finally:
            self._places.release()


class Lanes:
    """All of them, of one process."""

    def __init__(self) -> None:
        self.checking = Lane(CHECKING)
        """Configurations are checked."""
        self.asking = Lane(ASKING)
        """The alert engine is asked."""
        self.signing_in = Lane(SIGNING_IN)
        """The OpenID Connect provider is asked."""

    @functools.cached_property
    def identifying(self) -> anyio.CapacityLimiter:
        """Of who finds out who asks: before every request, and short."""
        return anyio.CapacityLimiter(IDENTIFYING)


Run = Callable[..., Response]


def lane(of: Callable[[Lanes], Lane]) -> Callable[[Run], Callable[..., Coroutine[Any, Any, Any]]]:
    """Runs a route in a lane; outside of ``reads`` and ``writes``."""

    def decorate(route: Run) -> Callable[..., Coroutine[Any, Any, Any]]:
        @functools.wraps(route)
        async def run(**arguments: Any) -> Response:
            lanes: Lanes = arguments["unit"].core.lanes
            return await of(lanes).run(functools.partial(route, **arguments))

        return run

    return decorate


checking = lane(lambda lanes: lanes.checking)
asking = lane(lambda lanes: lanes.asking)
