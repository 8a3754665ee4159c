"""Where the points of many tenants can be kept: VictoriaMetrics against PostgreSQL (a partition a
day, BRIN on the time, an index on series and time) and, where there is a program of it, InfluxDB 2.

One plant: machines with the same fields, a message each ten seconds, for some hours; the values are
those of ``value``. Each round fills a new, empty database, in the form that each takes fastest from
one connection (line protocol by HTTP, COPY), and asks it what dashboards ask. Bytes are those of
the whole folder once the server has written everything, WAL apart. PostgreSQL runs as it comes but
for ``fsync``, which the kit turns off; VictoriaMetrics as it is rendered, without vmauth.
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psutil
import psycopg
import urllib3

from services.infra import model, render
from services.infra.database import Database
from services.runtime import loader
from tests.bench.result import Figures, Options, Result, compare
from tests.kit.common import ROOT
from tests.kit.influx_real import RealInflux, binary
from tests.kit.postgres import Cluster
from tests.kit.victoria import Victoria, force_merge

MACHINES, FIELDS, EVERY_S = 50, 20, 10
SPAN_S, QUICK_SPAN_S = 6 * 3_600, 1_800
BATCH = 500
"""Messages a request."""
STORE, BUCKET = "vm-30d", "processo"
ASKED = 5
_HTTP = urllib3.PoolManager(timeout=120)


def value(draw: random.Random, machine: int, field: int, n: int) -> float:
    """A third each: slow sensors whose last digits are noise, counters, switches."""
    if field % 3 == 0:
        return round(50 + 20 * math.sin((n + machine) / 90) + draw.gauss(0, 0.5), 2)
    return float(n // 3) if field % 3 == 1 else float((n // (20 + machine)) % 2)


Message = tuple[int, int, list[float]]


class Plant:
    """Its messages in the order of time: (Unix s, machine, values)."""

    def __init__(self, span_s: int) -> None:
        self.end_s = int(time.time()) // 300 * 300
        self.start_s = self.end_s - span_s
        self.points = span_s // EVERY_S * MACHINES * FIELDS

    def batches(self) -> Iterator[list[Message]]:
        """Made as they are asked for: what that costs is not counted."""
        batch: list[Message] = []
        draw = random.Random(1)
        for n, at in enumerate(range(self.start_s, self.end_s, EVERY_S)):
            for machine in range(MACHINES):
                values = [value(draw, machine, f, n) for f in range(FIELDS)]
                batch.append((at, machine, values))
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch


class Server(Protocol):
    """One database with the plant's points."""

    def encode(self, batch: list[Message]) -> bytes: ...
    def take(self, body: bytes) -> None: ...
    def settle(self) -> None:
        """Everything is on disk and can be read."""

    def bytes_on_disk(self) -> int: ...
    def memory(self) -> int:
        """Resident, of all its processes."""

    def one(self, plant: Plant) -> int:
        """One field of one machine, mean of each minute of the last hour; how many values."""

    def all_machines(self, plant: Plant) -> int:
        """The same of every machine, mean of five minutes over the whole time."""

    def newest(self, plant: Plant) -> int:
        """The newest value of every series."""

    def close(self) -> None: ...


def lines(batch: list[Message]) -> bytes:
    """As the rendered Telegraf writes them."""
    return "\n".join(
        f"s7_db1,group=db500,locatario_id=acme,machine=m{machine:02d},plc_id=prensa-01,site=sp "
        + ",".join(f"f{f}={v}" for f, v in enumerate(values))
        + f" {at}000000000"
        for at, machine, values in batch
    ).encode()


def folder_bytes(folder: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file())


def resident(pid: int) -> int:
    process = psutil.Process(pid)
    # Pages that PostgreSQL's processes share are not counted for each.
    return sum(p.memory_full_info().pss for p in (process, *process.children(recursive=True)))


class VictoriaMetrics:
    """One store as it is rendered."""

    def __init__(self) -> None:
        fleet = model.fleet([loader.load(ROOT / "deploy/config.example.yaml", check_secrets=False)])
        self._centre = Victoria(render.render(fleet, database=Database.VICTORIAMETRICS))
        self._centre.start(STORE)
        self._url = self._centre.urls[STORE]

    encode = staticmethod(lines)

    def take(self, body: bytes) -> None:
        reply = _HTTP.request("POST", f"{self._url}/write?db={BUCKET}", body=body)
        assert reply.status == 204, reply.data

    def settle(self) -> None:
        # What is in memory goes to disk when it ends, not when it is killed.
        process = self._centre.processes[STORE]
        process.terminate()
        process.wait(60)
        self._centre.start(STORE)
        force_merge(self._url, self._centre.log_file(STORE))

    def bytes_on_disk(self) -> int:
        return folder_bytes(self._centre.folder / STORE)

    def memory(self) -> int:
        return resident(self._centre.processes[STORE].pid)

    def _range(self, query: str, start_s: int, end_s: int, step_s: int) -> int:
        fields = {"query": query, "start": str(start_s), "end": str(end_s), "step": str(step_s),
                  "nocache": "1"}  # fmt: skip
        reply = _HTTP.request("GET", f"{self._url}/api/v1/query_range", fields=fields)
        return sum(len(s["values"]) for s in reply.json()["data"]["result"])

    def one(self, plant: Plant) -> int:
        query = 'avg_over_time(s7_db1:f0{machine="m07"}[1m])'
        return self._range(query, plant.end_s - 3_540, plant.end_s, 60)

    def all_machines(self, plant: Plant) -> int:
        return self._range("avg_over_time(s7_db1:f0[5m])", plant.start_s + 300, plant.end_s, 300)

    def newest(self, plant: Plant) -> int:
        query = quote('last_over_time({__name__=~"s7_db1:.+"}[10m])')
        path = f"/api/v1/query?query={query}&time={plant.end_s}&nocache=1"
        return len(_HTTP.request("GET", self._url + path).json()["data"]["result"])

    def close(self) -> None:
        self._centre.close()


class PostgreSQL:
    """Narrow rows: time, series, value. Names of series are a table of their own."""

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._folder = self._cluster.folder
        url = self._cluster.create()
        self._db = psycopg.connect(url, autocommit=True)
        self._db.execute(
            "CREATE TABLE point (at timestamptz NOT NULL, series int NOT NULL, value float8)"
            " PARTITION BY RANGE (at)"
        )
        day_s = 86_400
        today = int(time.time()) // day_s * day_s
        for start in (today - day_s, today):
            self._db.execute(
                f"CREATE TABLE point_{start} PARTITION OF point FOR VALUES"
                f" FROM (to_timestamp({start})) TO (to_timestamp({start + day_s}))".encode()
            )
        self._db.execute("CREATE INDEX ON point USING brin (at)")
        self._db.execute("CREATE INDEX ON point (series, at)")

    def encode(self, batch: list[Message]) -> bytes:
        return "".join(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at))}\t{machine * FIELDS + f}\t{v}\n"
            for at, machine, values in batch
            for f, v in enumerate(values)
        ).encode()

    def take(self, body: bytes) -> None:
        with self._db.cursor().copy("COPY point FROM STDIN") as copy:
            copy.write(body)

    def settle(self) -> None:
        self._db.execute("VACUUM ANALYZE point")
        self._db.execute("CHECKPOINT")

    def bytes_on_disk(self) -> int:
        query = (
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits"
            " WHERE inhparent = 'point'::regclass"
        )
        row = self._db.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def memory(self) -> int:
        assert self._cluster.process is not None
        return resident(self._cluster.process.pid)

    def _rows(self, query: str, *values: object) -> int:
        return len(self._db.execute(query.encode(), values).fetchall())

    def one(self, plant: Plant) -> int:
        query = (
            "SELECT date_bin('1 minute', at, 'epoch') AS m, avg(value) FROM point"
            " WHERE series = %s AND at >= to_timestamp(%s) GROUP BY m"
        )
        return self._rows(query, 7 * FIELDS, plant.end_s - 3_600)

    def all_machines(self, plant: Plant) -> int:
        query = (
            "SELECT series, date_bin('5 minutes', at, 'epoch') AS m, avg(value) FROM point"
            " WHERE series = ANY(%s) GROUP BY series, m"
        )
        return self._rows(query, [m * FIELDS for m in range(MACHINES)])

    def newest(self, plant: Plant) -> int:
        query = (
            "SELECT series, value FROM generate_series(0, %s) AS series CROSS JOIN LATERAL"
            " (SELECT value FROM point p WHERE p.series = series.series"
            " AND at >= to_timestamp(%s) ORDER BY at DESC LIMIT 1) AS last"
        )
        return self._rows(query, MACHINES * FIELDS - 1, plant.end_s - 600)

    def close(self) -> None:
        self._db.close()
        self._cluster.end()


class InfluxDB2:
    """One bucket of one organisation."""

    def __init__(self) -> None:
        program = binary()
        assert program
        self._server = RealInflux(program)
        org = self._server.org("plataforma")
        body = {"orgID": org, "name": BUCKET}
        assert self._server.ask("POST", "/api/v2/buckets", body).status == 201

    encode = staticmethod(lines)

    def take(self, body: bytes) -> None:
        path = f"/api/v2/write?org=plataforma&bucket={BUCKET}"
        assert self._server.ask("POST", path, body).status == 204

    def settle(self) -> None:
        # Its cache goes to disk when it ends, not when it is killed.
        self._server.process.terminate()
        self._server.process.wait(60)
        self._server.start()

    def bytes_on_disk(self) -> int:
        return folder_bytes(self._server.folder / "engine" / "data")

    def memory(self) -> int:
        return resident(self._server.process.pid)

    def _rows(self, start_s: int, end_s: int, *steps: str) -> int:
        flux = "\n|> ".join(
            (f'from(bucket: "{BUCKET}")', f"range(start: {start_s}, stop: {end_s})", *steps)
        )
        body = {"query": flux, "type": "flux", "dialect": {"annotations": [], "header": False}}
        reply = self._server.ask("POST", "/api/v2/query?org=plataforma", body)
        assert reply.status == 200, reply
        return sum(bool(line.strip()) for line in str(reply.body).splitlines())

    def one(self, plant: Plant) -> int:
        where = 'filter(fn: (r) => r._field == "f0" and r.machine == "m07")'
        mean = "aggregateWindow(every: 1m, fn: mean, createEmpty: false)"
        return self._rows(plant.end_s - 3_600, plant.end_s, where, mean)

    def all_machines(self, plant: Plant) -> int:
        mean = "aggregateWindow(every: 5m, fn: mean, createEmpty: false)"
        where = 'filter(fn: (r) => r._field == "f0")'
        return self._rows(plant.start_s, plant.end_s, where, mean)

    def newest(self, plant: Plant) -> int:
        return self._rows(plant.end_s - 600, plant.end_s, "last()")

    def close(self) -> None:
        self._server.close()


def filled(make: Callable[[], Server], plant: Plant) -> Figures:
    """All figures of one database."""
    server = make()
    try:
        took_s = 0.0
        for batch in plant.batches():
            body = server.encode(batch)
            began_s = time.perf_counter()
            server.take(body)
            took_s += time.perf_counter() - began_s
        server.settle()
        return {
            "points/s in": plant.points / took_s,
            "bytes a point": server.bytes_on_disk() / plant.points,
            "MB (PSS)": server.memory() / 1e6,
            "ms, a machine's hour by the minute": asked_ms(
                lambda: server.one(plant), min(60, (plant.end_s - plant.start_s) // 60)
            ),
            f"ms, {MACHINES} machines, all the time by 5 minutes": asked_ms(
                lambda: server.all_machines(plant), MACHINES * (plant.end_s - plant.start_s) // 300
            ),
            f"ms, the newest of {MACHINES * FIELDS:,} series": asked_ms(
                lambda: server.newest(plant), MACHINES * FIELDS
            ),
        }
    finally:
        server.close()


def asked_ms(ask: Callable[[], int], wanted: int) -> float:
    """Median; each answer has to have all its values."""
    took_ms = []
    for _ in range(ASKED):
        began_s = time.perf_counter()
        got = ask()
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        assert abs(got - wanted) <= wanted * 0.02 + 1, f"{got} values instead of {wanted}"
    return statistics.median(took_ms)


def bench(options: Options) -> list[Result]:
    """Each figure of VictoriaMetrics against the others'."""
    plant = Plant(QUICK_SPAN_S if options.quick else int(options.seconds or SPAN_S))
    baselines: dict[str, Callable[[], Server]] = {"PostgreSQL": PostgreSQL}
    if binary():
        baselines["InfluxDB 2"] = InfluxDB2
    # Not in memory: the kit's folders lie in /tmp.
    assert not _in_memory(), f"{tempfile.gettempdir()} is memory: set TMPDIR to a disk"
    case = f"{plant.points:,} points of {MACHINES * FIELDS:,} series"
    return compare(
        "databases", case, lambda: filled(VictoriaMetrics, plant),
        {n: lambda make=make: filled(make, plant) for n, make in baselines.items()},  # type: ignore[misc]
        options.rounds or 3,
    )  # fmt: skip


def _in_memory() -> bool:
    best = max(
        (p for p in psutil.disk_partitions(all=True) if "/tmp".startswith(p.mountpoint)),
        key=lambda p: len(p.mountpoint),
    )
    return best.fstype == "tmpfs"
