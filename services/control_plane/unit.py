"""One request's work: who asks, for which tenant, in which transaction.

Every route is decorated with ``reads`` or ``writes``. These decide who may pass, open the session
(scoped to one tenant by services/control_plane/scope.py), and for a change commit it together with
its audit and its repeatable answer. A route has no other way to the database.

Everything of a request runs in one thread from here on: a writer that waits for another cannot
take the threads which that one needs. What may wait long for somebody else has threads of its own
(services/control_plane/lanes.py).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from services.control_plane import effects, replies
from services.control_plane.alerting.asking import Engines
from services.control_plane.alerting.sealing import Seal
from services.control_plane.audit import Chain
from services.control_plane.db import Database
from services.control_plane.identity import BOX, NOBODY, OPERATOR, Actor
from services.control_plane.lanes import Lanes
from services.control_plane.problems import Refusal
from services.control_plane.tables import Tenant
from services.runtime.clock import now_ms

if TYPE_CHECKING:
    from services.control_plane.broker.worker import BrokerWorker
    from services.control_plane.checking import Checker
    from services.control_plane.fleet.desk import Desk
    from services.control_plane.worker import Worker

ACTIVE, SUSPENDED, DELETED = "active", "suspended", "deleted"


@dataclass(frozen=True, slots=True)
class Core:
    """What every request works with."""

    database: Database
    chain: Chain
    checker: Checker
    broker: BrokerWorker | None
    """None: central.yaml names no broker."""
    targets: Mapping[str, Worker]
    """What follows a change outside, by its name; the broker among them."""
    fleet: Desk
    seal: Seal
    """Of receivers' secrets."""
    engines: Engines | None
    """None: no rules are evaluated here."""
    any_receiver: bool
    """Tenants may have addresses of private networks told."""
    lanes: Lanes = field(default_factory=Lanes)
    """Threads of what may wait long."""


class Row(Protocol):
    """A row with an ETag."""

    version: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route gives back; ``version`` becomes the ETag."""

    body: BaseModel | None
    status: int = 200
    version: int | None = None
    location: str | None = None

    def response(self) -> Response:
        """As HTTP."""
        headers = {"cache-control": "no-store"}
        if self.version is not None:
            headers["etag"] = f'"{self.version}"'
        if self.location is not None:
            headers["location"] = self.location
        if self.body is None:
            return Response(status_code=204, headers=headers)
        text = self.body.model_dump_json(by_alias=True)
        return Response(text, self.status, headers, "application/json")


class Unit:
    """The work of one request."""

    session: Session
    tenant: Tenant
    """The one in the path; unset where the path names none."""

    def __init__(self, core: Core, actor: Actor, if_match: str | None = None) -> None:
        self.core = core
        self.actor = actor
        self.request: replies.Request | None = None
        self.prepared: Any = None
        self.address = ""
        """Where the request came from."""
        self._if_match = if_match
        self._recorded = False
        self._after: list[Callable[[], None]] = []

    def match(self, row: Row) -> None:
        """Refuses a change of something that the caller has not seen in its present state."""
        etag = f'"{row.version}"'
        given = [tag.strip().removeprefix("W/") for tag in (self._if_match or "*").split(",")]
        if "*" not in given and etag not in given:
            raise Refusal("version-conflict", etag=etag)

    @property
    def has_condition(self) -> bool:
        """Whether the caller wants to change one version, so that it must be there."""
        return self._if_match is not None

    @staticmethod
    def touch(row: Row) -> None:
        """Says that a row was changed."""
        row.version += 1
        row.updated_ms = now_ms()

    def record(
        self, action: str, resource: str, before: BaseModel | None, after: BaseModel | None
    ) -> None:
        """Writes a change into the audit: what the API shows of it, before and after."""
        self.session.flush()
        self.core.chain.append(
            self.session,
            self.actor.id,
            self.actor.role,
            self.session.info["tenant"],
            action,
            resource,
            before.model_dump(mode="json") if before else None,
            after.model_dump(mode="json") if after else None,
        )
        self._recorded = True
        self.then(self.core.fleet.shares.forget)
        self.follow(now_ms(), *effects.SHOWS_AT.get(action.partition(".")[0], ()))

    def unrecorded(self) -> None:
        """Says that this change is none for the audit: a box that tells how it is."""
        self._recorded = True

    def then(self, call: Callable[[], None]) -> None:
        """Calls it once the change is committed."""
        self._after.append(call)

    def committed(self) -> None:
        """Does what was to follow."""
        for call in self._after:
            call()

    def follow(self, due_ms: int, *targets: str, of: Sequence[str] = ()) -> None:
        """Has the tenant's outside made right at these targets (those that there are) after this
        change, not before ``due_ms``; that of the tenants ``of``, where the change is nobody's own.
        """
        own = self.session.info["tenant"]
        for tenant in of or ([] if own is None else [own]):
            for target in targets:
                if target in self.core.targets:
                    effects.add(self.session, target, tenant, due_ms)

    # -- used by reads and writes --------------------------------------------------------

    def admit(self, path: dict[str, Any], roles: tuple[str, ...]) -> str | None:
        """The tenant whose rows this request may see (None: all). Of what belongs to others nobody
        learns that it is there: 404, and not 403.
        """
        tenant = path.get("tenant_id")
        foreign = self.actor.tenant_id is not None and tenant not in (None, self.actor.tenant_id)
        elsewhere = self.actor.role == BOX and path.get("site_id") != self.actor.site_id
        if foreign or (elsewhere and BOX in roles):
            raise Refusal("not-found")
        if self.actor.role not in roles:
            raise Refusal("forbidden", role=self.actor.role, needs=", ".join(roles))
        return tenant or self.actor.tenant_id

    def enter(self, session: Session, tenant_id: str | None, states: tuple[str, ...]) -> None:
        """Takes the session; refuses a tenant that does not exist or is in the wrong state."""
        self.session = session
        if tenant_id is None:
            return
        tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            raise Refusal("not-found")
        if tenant.state not in states:
            if tenant.state == SUSPENDED and self.actor.role != OPERATOR:
                raise Refusal("tenant-suspended", tenant=tenant.id)
            needs = ", ".join(states)
            raise Refusal("tenant-state", tenant=tenant.id, state=tenant.state, needs=needs)
        self.tenant = tenant

    def finish(self, answer: Answer, *, is_last: bool = True) -> Response:
        """The answer of a change, kept with it unless another follows."""
        pending = [*self.session.new, *self.session.deleted]
        pending += [row for row in self.session.dirty if self.session.is_modified(row)]
        if pending and not self._recorded:
            raise RuntimeError("a change without an entry in the audit")
        response = answer.response()
        if self.request is not None and is_last:
            replies.keep(self.session, self.request, response)
        return response


def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


async def _reading(request: Request) -> Unit:  # in a thread it would wait for one
    unit = Unit(_core(request), request.scope.get("actor", NOBODY))
    unit.address = request.client.host if request.client else ""
    return unit


_IDEMPOTENCY_KEY = Header(
    pattern=r"^[\x21-\x7e]{1,200}$",
    description="Any text of your own, new for each request: who repeats the request with the same"
    " one within a day gets the first answer, and nothing is done twice.",
)
_IF_MATCH = Header(pattern=r"^[\x20-\x7e]{1,200}$", description="Change only this version (ETag).")


async def _writing(
    request: Request,
    idempotency_key: Annotated[str | None, _IDEMPOTENCY_KEY] = None,
    if_match: Annotated[str | None, _IF_MATCH] = None,
) -> Unit:
    unit = Unit(_core(request), request.scope["actor"], if_match)
    if idempotency_key is not None:
        whole = f"{request.method} {request.url.path}\0".encode() + await request.body()
        digest = hashlib.sha256(whole).hexdigest()
        unit.request = replies.Request(unit.actor, idempotency_key, digest)
    return unit


Reading = Annotated[Unit, Depends(_reading)]
Writing = Annotated[Unit, Depends(_writing)]
Route = Callable[..., Answer]


# What a route needs done before it has a session: its outcome stands in ``unit.prepared``.
Before = Callable[[Unit, dict[str, Any]], Any]
# What is done once the change is committed, given the route's answer.
Then = Callable[[Unit, dict[str, Any], Answer], Answer]


def reads(*roles: str, before: Before | None = None) -> Callable[[Route], Callable[..., Response]]:
    """A route that changes nothing, for these roles."""

    def decorate(route: Route) -> Callable[..., Response]:
        _box_needs_its_site(route, roles)

        @functools.wraps(route)
        def run(**arguments: Any) -> Response:
            unit: Unit = arguments["unit"]
            scope = unit.admit(arguments, roles)
            unit.prepared = before(unit, arguments) if before else None
            with unit.core.database.reading(scope) as session:
                states = (ACTIVE, SUSPENDED, DELETED)
                unit.enter(session, arguments.get("tenant_id"), states)
                return route(**arguments).response()

        return run

    return decorate


def writes(
    *roles: str,
    states: tuple[str, ...] = (ACTIVE,),
    before: Before | None = None,
    instead: Callable[..., Answer | None] | None = None,
    then: Then | None = None,
) -> Callable[[Route], Callable[..., Response]]:
    """A route that changes something, for these roles, of a tenant in one of these states. Where
    ``instead``, given the same arguments and a session that only reads, has an answer, that is all.
    ``then`` asks somebody else for what the route has recorded, with nothing locked; what it makes
    of the route's answer is what the caller gets.
    """

    def decorate(route: Route) -> Callable[..., Response]:
        _box_needs_its_site(route, roles)

        @functools.wraps(route)
        def run(**arguments: Any) -> Response:
            unit: Unit = arguments["unit"]
            scope = unit.admit(arguments, roles)
            unit.prepared = before(unit, arguments) if before else None
            if instead is not None:
                with unit.core.database.reading(scope) as session:
                    unit.enter(session, arguments.get("tenant_id"), states)
                    if answer := instead(**arguments):
                        return answer.response()
            with unit.core.database.writing(scope) as session:
                if unit.request and (given := replies.find(session, unit.request)):
                    return given
                unit.enter(session, arguments.get("tenant_id"), states)
                answer = route(**arguments)
                response = unit.finish(answer, is_last=then is None)
            for worker in unit.core.targets.values():
                worker.wake()
            unit.committed()
            if then is None:
                return response
            response = then(unit, arguments, answer).response()
            if unit.request:
                with unit.core.database.writing(scope) as session:
                    if given := replies.find(session, unit.request):
                        return given
                    replies.keep(session, unit.request, response)
            return response

        return run

    return decorate


def opens(before: Callable[[Unit, dict[str, Any]], Actor]) -> Callable[[Route], Callable[..., Any]]:
    """A route that asks for no key: ``before`` finds out by the body alone for whom it speaks, and
    raises Refusal where for nobody. From there on it is within that tenant, as any other.
    """

    def decorate(route: Route) -> Callable[..., Response]:
        @functools.wraps(route)
        def run(**arguments: Any) -> Response:
            unit: Unit = arguments["unit"]
            unit.actor = before(unit, arguments)
            with unit.core.database.writing(unit.actor.tenant_id) as session:
                unit.enter(session, unit.actor.tenant_id, (ACTIVE,))
                response = unit.finish(route(**arguments))
            unit.committed()
            return response

        return run

    return decorate


def _box_needs_its_site(route: Route, roles: tuple[str, ...]) -> None:
    """A box sees its own site only, and the path says which that is."""
    if BOX in roles and "site_id" not in inspect.signature(route).parameters:
        raise TypeError(f"{route.__name__} is open to boxes and names no site")
