"""Makes one target outside as the database wants it: at each change, and all once in a while.

One thread a target, so that one that is away holds up no other. It reads what is wanted, asks what
is there, sends the difference, and only then forgets that it was asked: killed anywhere, it does
the same again, and finds it done.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.control_plane import effects
from services.control_plane.db import Database
from services.control_plane.effects import Due
from services.runtime.clock import now_ms
from services.runtime.log import Log

# Rows that come due, and a database that was away, are seen within this.
LOOK_S = 5.0


class Away(Exception):
    """The target is not there, or does not answer, or knows us no more: nobody can be served."""


class Refused(Exception):
    """The target did not do what was asked, in its own words; others may be served."""


class Worker(ABC):
    """The thread."""

    target: ClassVar[str]
    # What somebody changed there by hand, or a restored backup of it, is set right within this.
    reconcile_s: ClassVar[float] = 300.0
    # Looked at together.
    batch: ClassVar[int] = 1
    join_s: ClassVar[float] = 2.0

    def __init__(self, database: Database, log: Log) -> None:
        self.error: BaseException | None = None
        self.away: str | None = None
        """Why nobody can be served now; None where that is not so."""
        self._database = database
        self._log = log
        self._wake = threading.Event()
        self._ending = False
        self._all_due_s = 0.0
        self._unchecked: list[str] = []
        self._thread = threading.Thread(target=self._run, name=self.target, daemon=True)

    def start(self) -> None:
        """Once whatever it needs is made."""
        self._thread.start()

    def wake(self) -> None:
        """Something was asked for."""
        self._wake.set()

    def end(self) -> None:
        """Has it end after what it is doing; what is left undone stays in the database."""
        self._ending = True
        self._wake.set()

    def close(self) -> None:
        """Waits a moment for its end: killed anywhere, it loses nothing."""
        self.end()
        self._thread.join(self.join_s)

    # -- what a target is ----------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it makes sense to ask."""
        return True

    @abstractmethod
    def everybody(self) -> list[str]:
        """Every tenant, also those that only the target knows. Raises Away, Refused."""

    @abstractmethod
    def make_right(self, tenants: list[str]) -> None:
        """Asks, compares, sends the difference. Raises Away, Refused."""

    def _went_away(self, why: str) -> float:
        """How long until it is asked again."""
        return 1.0

    def _answered(self) -> None:  # noqa: B027
        """It was asked, and is there: for who keeps account of it."""

    # -- the loop ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ending:
                wait_s = LOOK_S
                if self.is_up:
                    try:
                        wait_s = self._turn()
                    except Away as e:
                        wait_s = self._went_away(str(e))
                    except (DBAPIError, PoolTimeoutError) as e:
                        self._log.warning("database away", error=str(e).partition("\n")[0])
                self._wake.wait(wait_s)
                self._wake.clear()
        except BaseException as e:  # handed to the main thread, which ends the process
            self.error = e

    def _turn(self) -> float:
        """A part of what is due, changes first; how long until the next."""
        with self._database.reading(None) as session:
            asked = effects.due(session, self.target, now_ms())[: self.batch]
        if asked and not self._carry_out(asked):
            for one in asked:
                self._carry_out([one])
        if time.monotonic() >= self._all_due_s:
            self._unchecked = self.everybody()
            self._all_due_s = time.monotonic() + self.reconcile_s
        if self._unchecked:
            part = self._unchecked[: self.batch]
            if self._attempt(part) and len(part) == 1:
                self._ask_again(part[0])
            del self._unchecked[: len(part)]
            return 0.0
        with self._database.reading(None) as session:
            next_ms = effects.next_due_ms(session, self.target)
        until_s = LOOK_S if next_ms is None else (next_ms - now_ms()) / 1_000
        return max(0.0, min(LOOK_S, until_s))

    def _ask_again(self, tenant_id: str) -> None:
        """What nobody had asked for was refused: from now on it waits where it can be seen."""
        with self._database.writing(None) as session:
            if not effects.is_asked(session, self.target, tenant_id):
                effects.add(session, self.target, tenant_id, now_ms())

    def _carry_out(self, asked: list[Due]) -> bool:
        """Whether it need not be tried one by one: who is refused holds up nobody else."""
        at_ms = now_ms()
        error = self._attempt([one.tenant_id for one in asked])
        if error and len(asked) > 1:
            return False
        with self._database.writing(None) as session:
            for one in asked:
                if error:
                    effects.postpone(session, one, at_ms, error)
                else:
                    effects.finish(session, one, at_ms)
        return True

    def _attempt(self, tenants: list[str]) -> str:
        """Makes these tenants right; what was said against it."""
        try:
            self.make_right(tenants)
        except Refused as e:
            self._log.error(f"{self.target} refused", tenants=tenants[:10], error=str(e))
            self._answered()
            return str(e)
        self._answered()
        return ""
