"""Takes roll-outs further, and writes down who was heard: one thread, awake once a second and at
every report that says something new.

All its state is in the database. Killed anywhere, it reads there how far it was; each step and the
targets that follow from it are one transaction.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.control_plane.audit import Chain
from services.control_plane.db import Database
from services.control_plane.fleet import rollout, store
from services.control_plane.fleet.waiting import Site, Waiters
from services.control_plane.tables import Report, RolloutRow, Tenant
from services.runtime.clock import now_ms
from services.runtime.log import Log

TURN_S = 1.0
# Between two turns, whatever happens: reports of a thousand boxes are judged together.
PAUSE_S = 0.1
# Away for longer (the database, this machine's clock), and boxes were not heard, whatever they
# said: their time begins anew.
AWAY_MS = 10_000

_DRIVEN = (rollout.RUNNING, rollout.HALTED, rollout.ROLLING_BACK)
_SEEN = (
    update(Report.__table__)  # type: ignore[arg-type]
    .where(
        Report.__table__.c.tenant_id == bindparam("tenant"),
        Report.__table__.c.site_id == bindparam("site"),
        Report.__table__.c.seen_ms < bindparam("at"),
    )
    .values(seen_ms=bindparam("at"), health=bindparam("how"))
)


class Conductor:
    """The thread."""

    def __init__(self, database: Database, chain: Chain, waiters: Waiters, log: Log) -> None:
        self.error: BaseException | None = None
        self._database = database
        self._chain = chain
        self._waiters = waiters
        self._log = log
        self._heard: dict[Site, tuple[int, dict[str, Any] | None]] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._ending = False
        self._up_since_ms = self._turned_ms = now_ms()
        self._thread = threading.Thread(target=self._run, name="roll-outs", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """A report or a person said something new."""
        self._woken.set()

    def heard(self, site: Site, at_ms: int, health: dict[str, Any] | None) -> None:
        """A box said what it had said before; written with those of the others."""
        with self._lock:
            self._heard[site] = (at_ms, health)

    def close(self) -> None:
        """Ends it."""
        self._ending = True
        self._woken.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        try:
            while not self._ending:
                try:
                    self._turn()
                except (DBAPIError, PoolTimeoutError) as e:
                    self._log.warning("database away", error=str(e).partition("\n")[0])
                self._woken.wait(TURN_S)
                self._woken.clear()
                time.sleep(PAUSE_S)
            self._write_seen()
        except BaseException as e:  # handed to the main thread, which ends the process
            self.error = e

    def _turn(self) -> None:
        at_ms = now_ms()
        if not 0 <= at_ms - self._turned_ms <= AWAY_MS:
            self._up_since_ms = at_ms
        self._write_seen()
        query = (
            select(RolloutRow.tenant_id, RolloutRow.id)
            .join(Tenant, Tenant.id == RolloutRow.tenant_id)
            .where(RolloutRow.state.in_(_DRIVEN), Tenant.state != "deleted")
        )
        with self._database.reading(None) as session:
            driven = session.execute(query).tuples().all()
        for tenant, rollout_id in driven:
            self._advance(tenant, rollout_id, at_ms)
        self._turned_ms = at_ms

    def _write_seen(self) -> None:
        with self._lock:
            heard, self._heard = self._heard, {}
        rows = [
            {"tenant": tenant, "site": site, "at": at_ms, "how": health}
            for (tenant, site), (at_ms, health) in heard.items()
        ]
        if not rows:
            return
        try:
            with self._database.writing(None) as session:
                session.connection().execute(_SEEN, rows)
        except BaseException:
            with self._lock:
                self._heard = {**heard, **self._heard}
            raise

    def _advance(self, tenant: str, rollout_id: str, at_ms: int) -> None:
        """One step, decided and written under the writer's lock; looked at without it first."""
        with self._database.reading(tenant) as session:
            row = session.get(RolloutRow, rollout_id)
            if row is None:  # purged meanwhile
                return
            stored = store.load(session, row)
            said = store.heard(session, tenant, rollout_id)
            if rollout.step(stored.now, said, at_ms, self._up_since_ms) == (stored.now, {}):
                return
        with self._database.writing(tenant) as session:
            row = session.get(RolloutRow, rollout_id)
            if row is None:
                return
            stored = store.load(session, row)
            before, said = stored.now, store.heard(session, tenant, rollout_id)
            new, targets = rollout.step(before, said, at_ms, self._up_since_ms)
            store.keep(session, stored, new, targets, at_ms)
            if targets or store.changed(before, new):
                store.record(session, self._chain, tenant, before, new)
        if targets:
            self._waiters.wake()
        if store.changed(before, new):
            self._log.info(
                "roll-out", id=rollout_id, tenant=tenant, state=new.state, stage=new.stage,
                reason=new.reason,
            )  # fmt: skip
            self.wake()
