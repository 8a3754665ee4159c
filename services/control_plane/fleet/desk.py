"""All that the routes need to look after boxes."""

from __future__ import annotations

from services.control_plane.audit import Chain
from services.control_plane.db import Database
from services.control_plane.fleet.ca import BoxCa
from services.control_plane.fleet.codes import Attempts
from services.control_plane.fleet.conductor import Conductor
from services.control_plane.fleet.shares import Shares
from services.control_plane.fleet.waiting import Waiters
from services.runtime.log import Log


class Desk:
    """The authority, who waits, what is under way, who tries codes, what each box may send."""

    def __init__(self, database: Database, chain: Chain, ca: BoxCa, log: Log) -> None:
        self.ca = ca
        self.attempts = Attempts()
        self.shares = Shares()
        self.waiters = Waiters(database)
        self.conductor = Conductor(database, chain, self.waiters, log)

    def check(self) -> None:
        """Raises RuntimeError where what goes on by itself has ended."""
        if self.waiters.failed is not None:
            raise RuntimeError("nobody looks for who waits") from self.waiters.failed
        if self.conductor.error is not None:
            raise RuntimeError("the roll-outs' thread failed") from self.conductor.error
