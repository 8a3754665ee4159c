"""A box's alerts beside a real store_forward: rendered from a configuration, fed by sources."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from services.runtime import loader, render
from services.runtime.clock import now_ms
from tests.kit.common import until
from tests.kit.procs import Service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source

SITE = """\
site: planta-sp
locatario: acme
paths: {{state: {run}, runtime: {run}}}
plcs:
  - id: p1
    host: 127.0.0.1
    groups: [{{name: g1, scan: 500ms, fields: [{{name: a, address: "DB1.DBD0:REAL"}}]}}]
  - id: p2
    host: 127.0.0.1
    groups: [{{name: g1, scan: 500ms, fields: [{{name: a, address: "DB1.DBD0:REAL"}}]}}]
store: {{min_free: 0MiB}}
{outputs}
alerts:
{alerts}
"""
HIGH = "    - {name: a-alto, type: threshold, where: {field: a}, above: 80, severity: critica}\n"


class World:
    """The run directory, two sources, the store, and what the alarms' database says."""

    def __init__(
        self, run: Path, receivers: str, rules: str = HIGH, routes: str = "", outputs: str = ""
    ) -> None:
        self.run = run
        self.file = run / "config.yaml"
        self.routes, self.outputs = routes, outputs
        self.configure(receivers, rules)
        (run / "conf").mkdir()
        self.sources = {plc: Source(run, plc) for plc in ("p1", "p2")}
        self._ts = dict.fromkeys(self.sources, 0)
        self._rings = dict.fromkeys(self.sources, False)
        self.expected: dict[str, list[tuple[int, str, str]]] = {p: [] for p in self.sources}
        """Of HIGH: (ts, from, to) by PLC."""
        self.fed: list[bytes] = []
        """All messages."""
        self.start_store()

    def start_store(self) -> None:
        """Starts it (again)."""
        self.store = Service(self.rendered["store_forward"])

    def configure(self, receivers: str, rules: str = HIGH) -> None:
        """Writes and renders the configuration."""
        alerts = f"  receivers:\n{receivers}" if receivers else ""
        alerts += f"  routes:\n{self.routes}" if self.routes else ""
        alerts += f"  rules:\n{rules}" if rules else "  rules: []\n"
        self.file.write_text(SITE.format(run=self.run, alerts=alerts, outputs=self.outputs))
        self.site = loader.load(self.file, {})
        self.rendered = render.render(self.site)
        render.write_clear_secrets(self.site)

    @contextmanager
    def alerts(self, env: dict[str, str] | None = None) -> Iterator[Service]:
        """The process; killed at the end."""
        running = Service(self.rendered["alerts"], env)
        try:
            yield running
        finally:
            running.end()

    def feed(self, plc: str, value: float, *, wait: bool = True) -> None:
        """One message; what HIGH makes of it is expected. Without ``wait`` nothing slows it."""
        ts = self._ts[plc] = max(self._ts[plc] + 1, now_ms())
        message = {"v": 1, "site": "planta-sp", "locatario_id": "acme", "plc_id": plc, "ts": ts,
                   "group": "g1", "quality": "good", "values": {"a": value}}  # fmt: skip

        def make(epoch: int, seq: int) -> bytes:
            self.fed.append(orjson.dumps({**message, "epoch": epoch, "seq": seq}))
            return self.fed[-1]

        self.sources[plc].publish(make, ts)
        self.sources[plc].step() if wait else self.sources[plc].turn()
        rings, self._rings[plc] = self._rings[plc], value > 80
        if self._rings[plc] and not rings:
            self.expected[plc].append((ts, "ok", "disparando"))
        elif rings and not self._rings[plc]:
            self.expected[plc].append((ts, "disparando", "resfriando"))
            self.expected[plc].append((ts, "resfriando", "ok"))

    def history(self) -> list[dict[str, Any]]:
        """All transitions, in order; [] before there is a database."""
        file = self.run / "alerts" / "alerts.db"
        # The process holds the file alone: a copy of it tells what is committed. One that was made
        # while the process moved pages from one file to the other is made again.
        for _ in range(100):
            with TemporaryDirectory(dir=self.run) as folder, suppress(sqlite3.Error, OSError):
                copy = Path(folder) / file.name
                for source in (file, file.with_name(f"{file.name}-wal")):
                    copy.with_name(source.name).write_bytes(source.read_bytes())
                with closing(sqlite3.connect(copy)) as db:
                    rows = db.execute("SELECT body FROM history ORDER BY number").fetchall()
                return [orjson.loads(body) for (body,) in rows]
            time.sleep(0.02)
        return []

    def drain(self) -> None:
        """Waits until the store has all that was fed."""
        for source in self.sources.values():
            source.drain()

    def settle(self) -> None:
        """Waits until all that was fed has been evaluated."""
        self.drain()
        wanted = sum(map(len, self.expected.values()))
        until(lambda: len(self.history()) >= wanted, 15, lambda: f"{self.history()}")

    def close(self) -> None:
        self.store.end()
        for source in self.sources.values():
            source.close()


@contextmanager
def world(
    receivers: str = "", rules: str = HIGH, routes: str = "", outputs: str = ""
) -> Iterator[World]:
    with run_folder() as run:
        it = World(run, receivers, rules, routes, outputs)
        try:
            it.store.wait_ready()
            yield it
        finally:
            it.close()
