"""Boxes that wait for a target to change: no thread each, and one look for all of them.

A change by this process is told to ``wake``. What another did (a second process at the database, a
restored backup) is found by a look at most once a second, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Iterator

import anyio
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.control_plane.db import Database
from services.control_plane.tables import Target

LOOK_S = 1.0
# Polls of one box at once; one more, and the oldest is sent home. So nobody's key fills the place.
PER_SITE = 8
# Threads in which boxes look for their targets, and in which they report: what a thousand of them
# do at once after a push leaves all others theirs.
LOOKING, REPORTING = 8, 4

Site = tuple[str, str]


class Waiter:
    """One that waits."""

    __slots__ = ("_rung", "ended")

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.ended = False
        """Sent home, whatever it waits for."""

    def ring(self, *, end: bool = False) -> None:
        """The target may have changed; or it is to go."""
        self.ended = self.ended or end
        self._rung.set()

    def begin(self) -> None:
        """From here on a change rings; what came before is seen by who looks now."""
        if not self.ended:
            self._rung.clear()

    async def rung(self, timeout_s: float) -> bool:
        """Whether it was rung before so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        return self._rung.is_set()


class Waiters:
    """Who waits, by tenant and box."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Site, deque[Waiter]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looker: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closed = False
        with database.reading(None) as session:
            self._seen = session.scalar(select(func.max(Target.seq))) or 0

    @functools.cached_property
    def looking(self) -> anyio.CapacityLimiter:
        """For the threads of who waits."""
        return anyio.CapacityLimiter(LOOKING)

    @functools.cached_property
    def reporting(self) -> anyio.CapacityLimiter:
        """For the threads of who reports: each may wait for the writers before it."""
        return anyio.CapacityLimiter(REPORTING)

    @property
    def failed(self) -> BaseException | None:
        """Why nobody looks any more; None while somebody does."""
        looker = self._looker
        if looker is None or not looker.done() or looker.cancelled():
            return None
        return looker.exception()

    # -- in the event loop ---------------------------------------------------------------

    @contextlib.contextmanager
    def waiting(self, site: Site) -> Iterator[Waiter]:
        """One that is rung when the target of ``site`` may have changed."""
        if self._looker is None:
            self._loop = asyncio.get_running_loop()
            self._looker = asyncio.ensure_future(self._look())
        waiter = Waiter()
        queue = self._waiting.setdefault(site, deque())
        queue.append(waiter)
        if self._closed:
            waiter.ring(end=True)
        elif len(queue) > PER_SITE:
            queue.popleft().ring(end=True)
        try:
            yield waiter
        finally:
            with contextlib.suppress(ValueError):  # it was sent home
                queue.remove(waiter)
            if not queue and self._waiting.get(site) is queue:
                del self._waiting[site]

    async def _look(self) -> None:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)
            self._woken.clear()
            if not self._waiting:
                continue
            try:
                changed = await anyio.to_thread.run_sync(self._changed)
            except (DBAPIError, PoolTimeoutError):  # away: whoever asks it is told so
                continue
            for site in changed:
                for waiter in self._waiting.get(site, ()):
                    waiter.ring()
        for queue in self._waiting.values():
            for waiter in queue:
                waiter.ring(end=True)

    def _changed(self) -> list[Site]:
        query = select(Target.tenant_id, Target.site_id, Target.seq).where(Target.seq > self._seen)
        with self._database.reading(None) as session:
            rows = session.execute(query).all()
        self._seen = max([self._seen, *(seq for _, _, seq in rows)])
        return [(tenant, site) for tenant, site, _ in rows]

    # -- from any thread -----------------------------------------------------------------

    def wake(self) -> None:
        """A target was changed."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Sends everybody home."""
        self._closed = True
        self.wake()
