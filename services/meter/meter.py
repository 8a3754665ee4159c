"""Counts points, messages and bytes per tenant, PLC and minute, and judges each minute at its end.

A consumer (services/consumer/durable.py): what it counted, which messages that were, and what
follows from it (a warning, a withdrawn right and the audit of it, the order to the broker) are one
transaction. Killed anywhere, it counts nothing twice and misses nothing that the broker still has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from bus.frames import SAMPLE_ROW, Heartbeat
from services.consumer.row import Row
from services.control_plane import effects, metering, quota
from services.control_plane.audit import Chain
from services.control_plane.db import Database
from services.control_plane.metering import Count
from services.control_plane.tables import LimitEvent, Metered, Plan, Standing, Tenant
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable

ACTOR, ROLE = "meter", "platform"
# A name of a PLC (CONTRACT §3). An account made by hand may publish under any other: "*".
_DEVICE = re.compile(r"[a-z0-9][a-z0-9_-]{1,31}")
ANY_DEVICE = "*"
FORGET_S = 3_600
# A minute further ahead than that was counted by a clock that was wrong.
AHEAD_S = 60
NUMBERS = ("over_minutes", "credit", "warned_s", "exceeded_s", "withdrawn_until_s")
Say = Callable[[str, str, str], None]


class Meter:
    """One for the centre."""

    window = 20_000
    commit_s = 1.0
    target = "the centre's database"

    def __init__(
        self, database: Database, chain: Chain, say: Say, clock: Callable[[], int] = now_ms
    ) -> None:
        """``say``: level, code, text. ``clock``: Unix ms."""
        self._database = database
        self._chain = chain
        self._say = say
        self._clock = clock
        self._counts: dict[tuple[str, str, int], list[int]] = {}
        """(tenant, device, minute) -> points, messages, bytes."""
        self._minutes: dict[tuple[int, str], list[int]] = {}
        """(minute, tenant) -> load, late."""
        self._closed_s = 0
        """The minute in which all before it were judged."""
        self._forgot_s = 0

    # -- a consumer ------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Forgets what is not committed; which messages are counted."""
        self._counts, self._minutes = {}, {}
        with _answering(), self._database.reading(None) as session:
            rows = session.execute(select(Metered.tenant_id, Metered.device_id, Metered.epochs))
            known = {f"{t}/{d}": orjson.loads(epochs) for t, d, epochs in rows}
        return orjson.dumps(known)

    def take(self, rows: Sequence[Row]) -> None:
        """Counts them in the minute in which they came."""
        now = self._clock()
        minute_s = now // 60_000 * 60
        late_ms = now - quota.LATE_S * 1_000
        for row in rows:
            points = _points(row)
            load = max(1, points)
            device = row.plc if _DEVICE.fullmatch(row.plc) else ANY_DEVICE
            count = self._counts.setdefault((row.locatario, device, minute_s), [0, 0, 0])
            count[0] += points
            count[1] += 1
            count[2] += len(row.body)
            whole = self._minutes.setdefault((minute_s, row.locatario), [0, 0])
            whole[0] += load
            whole[1] += load if row.ts_ms < late_ms else 0

    def commit(self, position: bytes) -> None:
        """All of it, which messages it was, and what follows."""
        counted: dict[str, Any] = orjson.loads(position)
        self._write(counted)
        self._counts, self._minutes = {}, {}

    def beat(self, beat: Heartbeat) -> None:
        """Nothing to count."""

    def tick(self) -> None:
        """Once a second: judges the minute that is over, where no commit does."""
        if not self._counts and self._minute() != self._closed_s:
            try:
                self._write({})
            except Unavailable as e:
                self._say("warning", e.code, e.message)

    def _minute(self) -> int:
        return self._clock() // 60_000 * 60

    # -- the transaction -------------------------------------------------------------------

    def _write(self, counted: dict[str, Any]) -> None:
        said: list[tuple[str, str, str]] = []
        minute_s = self._minute()
        with _answering(), self._database.writing(None) as session:
            limits = _limits(session)
            counts = [Count(*key, *count) for key, count in self._counts.items()
                      if key[0] in limits]  # fmt: skip
            metering.add(session, counts)
            _keep(session, counted, limits)
            for (at_s, tenant), (load, late) in sorted(self._minutes.items()):
                if tenant in limits:
                    standing = self._standing(session, tenant, at_s)
                    self._close(session, standing, at_s, limits[tenant], said)
                    standing.load += load
                    standing.late += late
            if minute_s != self._closed_s:
                self._close_all(session, minute_s, limits, said)
        self._closed_s = minute_s
        for words in said:
            self._say(*words)

    def _standing(self, session: Session, tenant: str, minute_s: int) -> Standing:
        found = session.get(Standing, tenant)
        if found is None:
            numbers = asdict(quota.Standing())
            found = Standing(tenant_id=tenant, minute_s=minute_s, load=0, late=0, **numbers)
            session.add(found)
        return found

    def _close_all(
        self, session: Session, minute_s: int, limits: dict[str, int], said: list[Any]
    ) -> None:
        """Judges every minute that is over, and says who may publish again."""
        moved = or_(Standing.load > 0, Standing.over_minutes > 0, Standing.withdrawn_until_s > 0)
        for standing in session.scalars(select(Standing).where(moved)):
            limit = limits[standing.tenant_id]
            self._close(session, standing, minute_s, limit, said)
            if 0 < standing.withdrawn_until_s <= self._clock() // 1_000:
                before = shown(standing.withdrawn_until_s)
                standing.withdrawn_until_s = 0
                self._tell(session, standing.tenant_id, "returned", 0, limit, said)
                self._audit(session, standing.tenant_id, "return", before, shown(0))
        if not 0 <= minute_s - self._forgot_s < FORGET_S:
            self._forgot_s = minute_s
            metering.forget(session, limits, minute_s)

    def _close(
        self, session: Session, row: Standing, minute_s: int, limit: int, said: list[Any]
    ) -> None:
        """Judges the minute that a standing has collected, where ``minute_s`` is a later one."""
        if row.minute_s > minute_s + AHEAD_S:
            self._set_back(session, row, minute_s)
        if minute_s <= row.minute_s:
            return
        tenant = row.tenant_id
        before = quota.Standing(**{name: getattr(row, name) for name in NUMBERS})
        minute = quota.Minute(row.minute_s, row.load, row.late)
        after, words = quota.judge(before, minute, limit)
        after = quota.idle(after, (minute_s - row.minute_s) // 60 - 1, limit)
        for name in NUMBERS:
            setattr(row, name, getattr(after, name))
        row.minute_s, row.load, row.late = minute_s, 0, 0
        for word in words:
            self._tell(session, tenant, word, minute.load, limit, said)
        if "withdrawn" in words:
            until = after.withdrawn_until_s
            states = shown(before.withdrawn_until_s), shown(until)
            self._audit(session, tenant, "withdraw", *states)
            # Now, and when it is over, whether this process lives then or not.
            effects.add(session, effects.BROKER, tenant, self._clock())
            effects.add(session, effects.BROKER, tenant, until * 1_000)

    def _set_back(self, session: Session, row: Standing, minute_s: int) -> None:
        """The clock was ahead: what was counted and decided then says nothing of now. Without this
        a tenant would go unjudged, or be withdrawn, until the wrong time has come.
        """
        row.minute_s, row.over_minutes, row.load, row.late = minute_s, 0, 0, 0
        now_ms = self._clock()
        until_s = quota.window(now_ms // 1_000) + quota.WINDOW_S
        if row.withdrawn_until_s > until_s:
            states = shown(row.withdrawn_until_s), shown(until_s)
            row.withdrawn_until_s = until_s
            self._audit(session, row.tenant_id, "withdraw", *states)
            effects.add(session, effects.BROKER, row.tenant_id, until_s * 1_000)

    def _tell(
        self, session: Session, tenant: str, word: str, load: int, limit: int, said: list[Any]
    ) -> None:
        event = LimitEvent(tenant_id=tenant, ts_ms=self._clock(), kind=word, load=load, limit=limit)
        session.merge(event)
        words = _WORDS[word].format(tenant=tenant, load=load, limit=limit)
        said.append(("info" if word == "returned" else "warning", f"quota_{word}", words))

    def _audit(self, session: Session, tenant: str, verb: str, before: Any, after: Any) -> None:
        where = f"tenants/{tenant}/limits"
        self._chain.append(session, ACTOR, ROLE, tenant, f"limits.{verb}", where, before, after)


_WORDS = {
    "warning": "{tenant} has used {load} of its {limit} points a minute",
    "exceeded": "{tenant} has sent {load} points in a minute, its plan is {limit}",
    "withdrawn": "{tenant} has sent more than twice its plan of {limit} points for five minutes"
    " ({load} in the last one): it may publish again in the next window",
    "returned": "{tenant} may publish again",
}


@contextmanager
def _answering() -> Iterator[None]:
    """Raises Unavailable where the database is away."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as e:
        text = str(e).partition("\n")[0]
        raise Unavailable("database", f"the database does not answer: {text}") from None


def shown(until_s: int) -> dict[str, Any]:
    """The right to publish, as the API shows it."""
    until = datetime.fromtimestamp(until_s, UTC).isoformat().replace("+00:00", "Z")
    return {"state": "withdrawn" if until_s else "allowed", "until": until if until_s else None}


def _points(row: Row) -> int:
    """Values of one field each; what is no message of ours has none."""
    if row.kind != SAMPLE_ROW:
        return 0
    values = orjson.loads(row.body).get("values")
    return len(values) if isinstance(values, dict) else 0


def _limits(session: Session) -> dict[str, int]:
    """Tenant -> points a minute of its plan."""
    query = select(Tenant.id, Plan.points_per_min).join(Plan, Plan.id == Tenant.plan_id)
    return {row.id: row.points_per_min for row in session.execute(query)}


def _keep(session: Session, counted: dict[str, Any], limits: dict[str, int]) -> None:
    """Of PLCs that can be one."""
    rows = []
    for name, epochs in counted.items():
        tenant, _, device = name.partition("/")
        if tenant in limits and _DEVICE.fullmatch(device):
            text = orjson.dumps(epochs).decode()
            rows.append({"tenant_id": tenant, "device_id": device, "epochs": text})
    if not rows:
        return
    kind = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = kind.insert(Metered)
    keys = ["tenant_id", "device_id"]
    excluded = {"epochs": insert.excluded.epochs}
    session.execute(insert.on_conflict_do_update(index_elements=keys, set_=excluded), rows)
