"""The control plane with 1,000 boxes of 50 PLCs: how long a read and a configuration push take over
HTTP, from several clients at once, on both databases.

The boxes are registered by the API's own code in this process, a transaction each, on SQLite; the
other database gets them by a backup and a restore. Then the real process serves, and each client
asks again as soon as it is answered: one alone keeps it busy, four are as many as it can answer and
show what is left at its limit. Goals, on an idle machine: p99 of reads below 50 ms, of pushes below
200 ms. ``--quick``: 100 boxes.
"""

from __future__ import annotations

import inspect
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import insert, select

from services.control_plane.alerting.sealing import Seal
from services.control_plane.backup import write
from services.control_plane.checking import Checker, look
from services.control_plane.fleet import ca
from services.control_plane.fleet.desk import Desk
from services.control_plane.identity import Actor
from services.control_plane.restore import restore
from services.control_plane.routes import configs, plans, sites, tenants
from services.control_plane.tables import Credential, Usage
from services.control_plane.unit import ACTIVE, Core, Unit
from services.runtime.clock import now_ms
from services.runtime.log import Log
from tests.bench.result import Figures, Measure, Options, Result, compare, percentiles
from tests.kit.centre import DATABASES, Centre

TENANTS, QUICK_TENANTS = 20, 2
BOXES, PLCS = 50, 50
"""Of each tenant; of each box."""
ONE, MANY = 1, 4
"""Clients that ask at once."""
SECONDS = 10.0
PLAN = "enterprise"
MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Fleet:
    """All that is registered, and where."""

    centre: Centre
    tenants: int


def tenant(n: int) -> str:
    return f"cliente-{n:02d}"


def config(tenant_id: str, box: int, comment: int = 0) -> str:
    """A box with 50 PLCs; another ``comment`` is another text."""
    lines = [f"# {comment}", f"site: caixa-{box:03d}", f"locatario: {tenant_id}", "plcs:"]
    for plc in range(PLCS):
        lines += [
            f"  - id: clp-{box:03d}-{plc:02d}",
            f"    host: 192.168.{box}.{plc + 10}",
            "    groups:",
            "      - name: db500",
            "        db: 500",
            "        scan: 1s",
            '        fields: [{name: a, address: "DB500.DBW0:INT"},'
            ' {name: b, address: "DB500.DBD2:REAL"}]',
        ]
    return "\n".join(lines) + "\n"


def fill(fleet: Fleet) -> None:
    """Registers everything."""
    centre = fleet.centre
    with centre.database.reading(None) as session:
        operator = session.scalars(select(Credential.id)).one()
    actor = Actor(operator, "operator", None, None, centre.key)
    desk = Desk(centre.database, centre.chain, ca.load(centre.config.state), Log("bench"))
    seal = Seal.load(centre.config.state)
    core = Core(
        centre.database, centre.chain, Checker(), None, {}, desk, seal, None, any_receiver=False
    )

    def work(tenant_id: str | None, *routes: Callable[[Unit], Any]) -> None:
        """In one transaction."""
        with centre.database.writing(tenant_id) as session:
            unit = Unit(core, actor)
            unit.enter(session, tenant_id, (ACTIVE,))
            for route in routes:
                route(unit)

    limits = plans.PlanForm(max_devices=100_000, points_per_min=100_000_000, raw_days=30)
    work(None, lambda u: bare(plans.put_plan)(unit=u, plan_id=PLAN, form=limits))
    with tempfile.TemporaryDirectory() as folder:
        found = look(Path(folder), config(tenant(0), 0), {})
    assert found["problems"] == [], found
    for name in map(tenant, range(fleet.tenants)):
        form = tenants.NewTenant(id=name, plan=PLAN)
        work(None, lambda u, f=form: bare(tenants.create_tenant)(unit=u, form=f))  # type: ignore[misc]
        for box in range(BOXES):
            site = f"caixa-{box:03d}"

            def push(u: Unit, name: str = name, box: int = box, site: str = site) -> None:
                own = [{"id": f"clp-{box:03d}-{n:02d}", "tenant": name} for n in range(PLCS)]
                u.prepared = {**found, "site": site, "plcs": own, "tenants": [name]}
                text = configs.NewConfig(yaml=config(name, box))
                bare(configs.create_config)(unit=u, tenant_id=name, site_id=site, form=text)

            made = sites.NewSite(id=site)
            work(
                name,
                lambda u, n=name, m=made: bare(sites.create_site)(unit=u, tenant_id=n, form=m),  # type: ignore[misc]
                push,
            )
    desk.conductor.close()
    use(fleet)


def bare(route: Any) -> Callable[..., Any]:
    """A route without its transaction."""
    inner: Callable[..., Any] = inspect.unwrap(route)
    return inner


def use(fleet: Fleet) -> None:
    """A day of usage by the minute of every tenant, by the hour of every PLC of one."""
    now_s = now_ms() // 60_000 * 60
    counts = {"points": 6_000, "messages": 3_000, "bytes": 900_000}
    rows = [
        {"tenant_id": tenant(t), "span": "minute", "start_s": now_s - 60 * m, "device_id": "",
         **counts}
        for t in range(fleet.tenants) for m in range(MINUTES)
    ]  # fmt: skip
    rows += [
        {"tenant_id": tenant(0), "span": "hour", "start_s": now_s // 3_600 * 3_600 - 3_600 * h,
         "device_id": f"clp-{b:03d}-{p:02d}", **counts}
        for h in range(24) for b in range(BOXES) for p in range(PLCS)
    ]  # fmt: skip
    with fleet.centre.database.changing() as connection:
        for first in range(0, len(rows), 2_000):
            connection.execute(insert(Usage), rows[first : first + 2_000])


def read(fleet: Fleet, draw: random.Random) -> None:
    """One of what pages and boxes ask for."""
    base = f"/v1/tenants/{tenant(draw.randrange(fleet.tenants))}"
    box = draw.randrange(BOXES)
    site = f"{base}/sites/caixa-{box:03d}"
    path = draw.choice(
        (
            "/v1/tenants", base, f"{base}/sites", site, f"{base}/devices",
            f"{base}/devices/clp-{box:03d}-{draw.randrange(PLCS):02d}", f"{site}/configs",
            f"{site}/configs/1", f"{base}/usage?span=minute", f"{base}/limits", f"{base}/audit",
        )
    )  # fmt: skip
    reply = fleet.centre.call("GET", path)
    assert reply.status == 200, reply


_NUMBERS = itertools.count(1)


def push(fleet: Fleet, draw: random.Random) -> None:
    """A new version of some box's configuration, of 50 PLCs."""
    name, box = tenant(draw.randrange(fleet.tenants)), draw.randrange(BOXES)
    path = f"/v1/tenants/{name}/sites/caixa-{box:03d}/configs"
    reply = fleet.centre.call("POST", path, {"yaml": config(name, box, next(_NUMBERS))})
    assert reply.status == 201, reply


def health(fleet: Fleet, _: random.Random) -> None:
    """The least that a request can cost."""
    assert fleet.centre.call("GET", "/healthz").status == 200


Ask = Callable[[Fleet, random.Random], None]


def asked(fleet: Fleet, ask: Ask, seconds: float, clients: int) -> Figures:
    """Percentiles over all clients, ms, and how many were answered in a second."""
    took_ms: list[float] = []
    failed: list[BaseException] = []
    end_s = time.monotonic() + seconds

    def client(seed: int) -> None:
        draw = random.Random(seed)
        try:
            while time.monotonic() < end_s:
                began_s = time.perf_counter()
                ask(fleet, draw)
                took_ms.append((time.perf_counter() - began_s) * 1e3)
        except BaseException as e:  # a thread's failure is the bench's
            failed.append(e)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return {**percentiles(took_ms, "ms", 50, 99), "a second": len(took_ms) / seconds}


def bench(options: Options) -> list[Result]:
    """Reads, pushes, and reads while configurations are pushed."""
    rounds, seconds = options.rounds or 3, options.seconds or SECONDS
    results: list[Result] = []
    with tempfile.TemporaryFile() as copy:
        for database in DATABASES:
            centre = Centre(database)
            try:
                fleet = Fleet(centre, QUICK_TENANTS if options.quick else TENANTS)
                results.append(prepared(fleet, copy))
                centre.start()
                asked(fleet, read, 1.0, MANY)  # plans and caches are made
                for clients in (ONE, MANY):
                    results += measured(fleet, database, clients, rounds, seconds)
            finally:
                centre.__exit__(None, None, None)
    return results


def prepared(fleet: Fleet, copy: IO[bytes]) -> Result:
    """The boxes: the first time they are made, then taken over."""
    centre = fleet.centre
    state, began_s = centre.config.state, time.monotonic()
    first = not copy.seek(0, 2)
    if first:
        fill(fleet)
    else:
        copy.seek(0)
        restore(centre.database, state, copy, force=True)
        centre.take_over()
    took_s = time.monotonic() - began_s
    if first:
        write(centre.database, state, copy)
    how = "registered" if first else "restored from its backup"
    case = f"{fleet.tenants * BOXES:,} boxes with {PLCS} PLCs each, {how}"
    return Result("central-scale", case, "s", took_s, None, None, None, (took_s, took_s), 1)


def measured(
    fleet: Fleet, database: str, clients: int, rounds: int, seconds: float
) -> list[Result]:
    """Of one running control plane."""

    def while_pushed() -> Figures:
        pushing = threading.Thread(target=asked, args=(fleet, push, seconds, 1))
        pushing.start()
        figures = asked(fleet, read, seconds, clients)
        pushing.join()
        return figures

    def case(what: str, ours: Measure, **baselines: Measure) -> list[Result]:
        who = "1 client" if clients == 1 else f"{clients} clients"
        return compare("central-scale", f"{database}, {who}: {what}", ours, baselines, rounds)

    return [
        *case("read", lambda: asked(fleet, read, seconds, clients),
              healthz=lambda: asked(fleet, health, seconds / 4, clients)),
        *case("push a configuration", lambda: asked(fleet, push, seconds, clients)),
        *case("read while another pushes", while_pushed),
    ]  # fmt: skip
