"""What a thousand boxes cost that wait for a target: each holds a TLS connection with a certificate
of its own, polls for 55 s at a time, and reports once a minute on another connection, as boxes do.
Then every one of them is sent a version, and reports that it has applied it.

All boxes are in this process, and share its core: the delivery is what both together take.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.control_plane import tables
from services.control_plane.fleet import ca
from services.control_plane.identity import BOX, CERTIFICATE, new_id
from services.runtime.clock import now_ms
from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.watch import Cpu, pss_mb
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre

TENANTS, BOXES = 10, 100
"""Tenants, and boxes of each."""
WAIT_S, REPORT_S, SECONDS = 55, 60.0, 60.0
CONNECTING = 20
"""Handshakes at once."""


@dataclass
class Box:
    """One box: what it has to show, and when it got what."""

    tenant: str
    site: str
    context: ssl.SSLContext
    have: int = 1
    rollout: str | None = None
    got_s: dict[int, float] = field(default_factory=dict)
    saying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One report at a time: an older one must not come after a newer."""

    @property
    def path(self) -> str:
        """Of it in the API."""
        return f"/v1/tenants/{self.tenant}/sites/{self.site}"


class Link:
    """One connection that asks one thing after the other; opened anew where it was closed."""

    def __init__(self, port: int, box: Box, limit: asyncio.Semaphore) -> None:
        self._port, self._box, self._limit = port, box, limit
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        request = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
        while True:
            try:
                reader, writer = self._streams or await self._open()
                writer.write(request)
                return await self._answer(reader)
            except (asyncio.IncompleteReadError, ConnectionError):  # idle for long: closed
                self.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._limit:
            self._streams = await asyncio.open_connection(
                "localhost", self._port, ssl=self._box.context
            )
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), json.loads(body) if body else None

    def close(self) -> None:
        """The next request opens another."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def fill(centre: Centre) -> list[Box]:
    """Tenants with their boxes, three versions of each, a target and a certificate, put into the
    database as the API would: a thousand checks are another bench.
    """
    authority, now = ca.load(centre.config.state), now_ms()
    private = ec.generate_private_key(ec.SECP256R1())  # one for all: the files differ all the same
    key = centre.folder / "box.key"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    times = {"created_ms": now, "updated_ms": now}
    found = []
    for t in range(TENANTS):
        tenant = f"t{t}-sa"
        centre.make("/v1/tenants", {"id": tenant, "plan": "enterprise"})
        with centre.database.writing(tenant) as session:
            for s in range(BOXES):
                site, credential = f"caixa-{s}", new_id("crd")
                issued = authority.issue(tenant, site, private.public_key(), now)
                of_site = {"tenant_id": tenant, "site_id": site}
                session.add(tables.Site(tenant_id=tenant, id=site, name="", **times))
                session.flush()
                for v in (1, 2, 3):
                    text = BOX_CONFIG.format(site=site, tenant=tenant, plc=f"c-{s}", scan=f"{v}s")
                    session.add(
                        tables.BoxConfig(
                            version=v, yaml=text, layouts={}, sha256="0" * 64, comment="",
                            points_per_min=1, check={}, author="bench", created_ms=now, **of_site,
                        )
                    )  # fmt: skip
                session.add(
                    tables.Target(
                        version=1, overwrite=False, seq=0, set_ms=now, author="bench", **of_site
                    )
                )
                session.add(
                    tables.Credential(
                        id=credential, kind=CERTIFICATE, name="", role=BOX, serial=issued.serial,
                        **times, **of_site,
                    )
                )  # fmt: skip
                session.flush()
                session.add(
                    tables.Certificate(
                        serial=issued.serial, tenant_id=tenant, credential_id=credential,
                        sha256=issued.sha256, key_sha256="", pem=issued.pem, created_ms=now,
                        not_after_ms=now + 10**9,
                    )
                )  # fmt: skip
                file = centre.folder / f"{tenant}-{site}.pem"
                file.write_text(issued.pem)
                found.append(Box(tenant, site, _context(centre, file, key)))
    return found


def _context(centre: Centre, cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(centre.ca_file))
    context.load_cert_chain(cert, key)
    return context


class Fleet:
    """All boxes, at work."""

    def __init__(self, centre: Centre, boxes: list[Box]) -> None:
        self.centre, self.boxes = centre, boxes
        self._limit = asyncio.Semaphore(CONNECTING)
        self._tasks: list[asyncio.Task[None]] = []
        self.polls = self.reports = 0

    async def begin(self) -> None:
        """Every box has reported once and waits."""
        for box in self.boxes:
            self._tasks.append(asyncio.create_task(self._poll(box)))
            self._tasks.append(asyncio.create_task(self._report(box)))
        while self.reports < len(self.boxes):
            await asyncio.sleep(0.1)
            self.check()

    def check(self) -> None:
        """Raises what a box met."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def end(self) -> None:
        """All of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self, box: Box) -> None:
        link, wait_s = Link(self.centre.port, box, self._limit), random.randint(1, WAIT_S)
        try:
            while True:
                path = f"{box.path}/target?have={box.have}&wait_s={wait_s}"
                status, target = await link.ask("GET", path)
                assert status in (200, 204), (status, target)
                self.polls += 1
                wait_s = WAIT_S
                if status == 200:
                    box.have, box.rollout = target["version"], target["rollout"]
                    box.got_s[box.have] = time.monotonic()
                    await self._say(link, box, "applied")
        finally:
            link.close()

    async def _report(self, box: Box) -> None:
        link, pause_s = Link(self.centre.port, box, self._limit), random.uniform(0, REPORT_S)
        try:
            while True:
                await self._say(link, box, "applied")
                self.reports += 1
                await asyncio.sleep(pause_s)
                pause_s = REPORT_S
        finally:
            link.close()

    async def _say(self, link: Link, box: Box, state: str) -> None:
        async with box.saying:
            health = {"plcs": {"clp-1": "online"}, "outputs": {"central": "up"}}
            pending = {"pending": random.randrange(1_000)}
            form = {
                "state": state,
                "version": box.have,
                "running": box.have,
                "rollout": box.rollout,
            }
            body = {**form, "health": {**health, **pending}}
            status, answer = await link.ask("PUT", f"{box.path}/report", body)
            assert status == 200, answer


async def _waiting(fleet: Fleet, pid: int, seconds: float) -> Figures:
    polls, reports, cpu = fleet.polls, fleet.reports, Cpu([pid])
    await asyncio.sleep(seconds)
    fleet.check()
    return {
        "% of a core": cpu.percent(),
        "polls/s": (fleet.polls - polls) / seconds,
        "reports/s": (fleet.reports - reports) / seconds,
        "MB PSS": pss_mb([pid]),
    }


async def _push(fleet: Fleet, version: int) -> Figures:
    """A roll-out in one stage for each tenant."""
    centre, began_s = fleet.centre, time.monotonic()

    def begin(tenant: int) -> str:
        path = f"/v1/tenants/t{tenant}-sa/rollouts"
        sites = {f"caixa-{s}": version for s in range(BOXES)}
        made = centre.make(path, {"sites": "all", "versions": sites, "stages": [100]})
        return f"{path}/{made['id']}"

    made = await asyncio.gather(*(asyncio.to_thread(begin, t) for t in range(TENANTS)))
    asked_s = time.monotonic() - began_s
    while any(version not in box.got_s for box in fleet.boxes):
        await asyncio.sleep(0.01)
        fleet.check()
    took = sorted(box.got_s[version] - began_s for box in fleet.boxes)
    for path in made:
        while (await asyncio.to_thread(centre.call, "GET", path)).body["state"] != "done":
            await asyncio.sleep(0.05)
    return {
        "s to ask for all": asked_s,
        "s to the median box": statistics.median(took),
        "s to the last box": took[-1],
        "s until all are done": time.monotonic() - began_s,
    }


async def _run(centre: Centre, boxes: list[Box], seconds: float) -> tuple[Figures, Figures]:
    assert centre.service is not None
    fleet = Fleet(centre, boxes)
    try:
        await fleet.begin()
        waiting = await _waiting(fleet, centre.service.pid, seconds)
        return waiting, await _push(fleet, 2)
    finally:
        await fleet.end()


def bench(options: Options) -> list[Result]:
    """On both databases."""
    results = []
    for database in DATABASES:
        waiting: list[Round] = []
        pushed: list[Round] = []
        for _ in range(options.rounds or 1):
            with Centre(database, tls=True) as centre:
                seconds = options.seconds or SECONDS
                idle, push = asyncio.run(_run(centre, fill(centre), seconds))
                waiting.append((idle, {}))
                pushed.append((push, {}))
        boxes = f"{TENANTS * BOXES:,} boxes, {database}"
        results += rows("central-poll", f"waiting, {boxes}", waiting)
        results += rows("central-poll", f"one version for each, {boxes}", pushed)
    return results
