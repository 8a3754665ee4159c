"""What the workers of HTTP targets have in common: one organisation for each tenant."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from typing import ClassVar

from sqlalchemy import delete

from services.control_plane.db import Database
from services.control_plane.outside import wanted
from services.control_plane.outside.wanted import ORG, Wanted
from services.control_plane.tables import External
from services.control_plane.worker import Worker
from services.runtime import failpoints
from services.runtime.log import Log

RETRY_S, RETRY_MAX_S = 1.0, 60.0


class HttpWorker(Worker):
    """One tenant at a time: each has an organisation of its own there.

    Whose organisation it is stands in the database (``externals``), written before it is made, so
    that one whose making was interrupted is found by its name, and one that an earlier tenant of
    the same name had is removed before the new one gets its own: never a row of another's data.
    """

    reconcile_s: ClassVar[float] = 3_600.0

    def __init__(self, database: Database, log: Log) -> None:
        super().__init__(database, log)
        self._failures = 0

    # -- when nobody is there ------------------------------------------------------------

    def _went_away(self, why: str) -> float:
        if self.away != why:
            self._log.warning(f"{self.target} away", error=why)
        self.away = why
        pause_s = min(RETRY_MAX_S, RETRY_S * float(2 ** min(self._failures, 6)))
        self._failures += 1
        return pause_s * random.uniform(0.5, 1.0)

    def _answered(self) -> None:
        if self.away is not None:
            self._log.info(f"{self.target} is back")
            self._all_due_s = 0.0  # it may be another one, or restored from a backup
        self.away, self._failures = None, 0

    # -- organisations -------------------------------------------------------------------

    @abstractmethod
    def find_org(self, tenant_id: str) -> str | None:
        """The id of the organisation of this name."""

    @abstractmethod
    def make_org(self, tenant_id: str) -> str:
        """A new one; its id."""

    @abstractmethod
    def remove_org(self, tenant_id: str, org: str) -> None:
        """With everything in it; one that is not there any more is no fault."""

    @abstractmethod
    def furnish(self, want: Wanted, org: str) -> None:
        """What must be in it."""

    def everybody(self) -> list[str]:
        """Every tenant, and those of which something is left."""
        with self._database.reading(None) as session:
            return wanted.everybody(session, self.target)

    def make_right(self, tenants: list[str]) -> None:
        """Each of them."""
        for tenant_id in tenants:
            with self._database.reading(tenant_id) as session:
                want = wanted.wanted(session, tenant_id)
                row = wanted.made(session, self.target, tenant_id).get(ORG)
                known = None if row is None else (row.external_id, row.since_ms)
            if known is not None and (want is None or want.since_ms != known[1]):
                self._remove(tenant_id, known[0])
                known = None
            if want is not None:
                org = self._org(want, known[0] if known else None)
                if org is not None:
                    self.furnish(want, org)

    def _org(self, want: Wanted, known: str | None) -> str | None:
        """The tenant's own: found, or made; None where there is none, and none is needed."""
        org = self.find_org(want.tenant_id)
        if org is None:
            if want.state == "deleted":
                return None
            self._keep(want, ORG, "")
            failpoints.hit(f"{self.target}.before_org")
            org = self.make_org(want.tenant_id)
            failpoints.hit(f"{self.target}.org")
            self._log.info(f"{self.target} set right", tenant=want.tenant_id, made="organisation")
        if org != known:
            self._keep(want, ORG, org)
        return org

    def _remove(self, tenant_id: str, known: str) -> None:
        org = known or self.find_org(tenant_id)
        if org is not None:
            self.remove_org(tenant_id, org)
            failpoints.hit(f"{self.target}.removed")
            self._log.info(f"{self.target} set right", tenant=tenant_id, removed="organisation")
        with self._database.writing(tenant_id) as session:
            gone = delete(External).where(
                External.tenant_id == tenant_id, External.target == self.target
            )
            session.execute(gone)

    # -- what was made -------------------------------------------------------------------

    def _made(self, tenant_id: str, target: str | None = None) -> dict[str, tuple[str, str | None]]:
        """Name -> (id there, hash)."""
        with self._database.reading(tenant_id) as session:
            rows = wanted.made(session, target or self.target, tenant_id)
            return {name: (row.external_id, row.hash) for name, row in rows.items()}

    def _keep(self, want: Wanted, name: str, external_id: str, hash_: str | None = None) -> None:
        with self._database.writing(want.tenant_id) as session:
            wanted.keep(
                session, self.target, want.tenant_id, name, external_id, want.since_ms, hash_
            )


def sha256(text: str) -> str:
    """In hex."""
    return hashlib.sha256(text.encode()).hexdigest()
