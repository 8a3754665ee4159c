"""The real historian beside a real store. 50 PLCs × 200 values at 10 Hz are fed by the keep wire
(50 readers and their PLCs would take the machine's cores from what is measured), with the
simulator's signals (``engines/signals.py``); a real box of ten readers tells what it does to their
jitter. ``--seconds`` (300): how long the first lasts, the second a fifth of it.

Then hours of the past are fed as fast as they are taken: 90 minutes of one PLC for bytes a value,
a day of eight values at 10 Hz and a month of them every 10 s for the queries.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import apsw
import orjson
import psutil
import yaml

from bus.topology import KEEP_WINDOW
from services.historian.asking import answer
from services.historian.reading import History
from services.runtime import loader, render
from services.runtime.clock import now_ms
from tests.bench.engines.signals import Columns, columns
from tests.bench.jitter import off
from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.site import BOOLS, INTS, REALS, fields
from tests.bench.watch import Cpu, disk_mb, idle_percent, pss_mb
from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.procs import Service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source

PLCS, SCAN_MS = 50, 100
VALUES = REALS + INTS + BOOLS
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
KEEPING_S = 5_400
REAL_PLCS = 10
SETTLE_S = 5.0
SMALL = 0.04
"""Of the fields, where what is asked for is one of them."""
ASKED = 5


def bodies(rows: Columns, plc: str) -> Iterator[tuple[int, bytes]]:
    """(ts_ms, the message but for its epoch, seq and ts) of each row, as a reader makes it."""
    head = {"v": 1, "site": "bench", "locatario_id": "acme", "plc_id": plc, "ip": "192.168.0.10",
            "db": 500, "group": "db500", "measurement": "s7_db1", "quality": "good",
            "latency_ms": 2.41}  # fmt: skip
    names = [name for name, _ in rows.named()]
    floats = rows.reals.astype(float).round(2)
    lines = zip(rows.ts_ms.tolist(), floats, rows.ints, rows.bools.astype(bool), strict=True)
    for ts_ms, reals, ints, bools in lines:
        values = dict(zip(names, (*reals.tolist(), *ints.tolist(), *bools.tolist()), strict=True))
        yield ts_ms, orjson.dumps({**head, "values": values})[1:-1]


def publish(source: Source, ts_ms: int, body: bytes) -> None:
    """One message."""
    source.publish(lambda e, s: b'{"epoch":%d,"seq":%d,"ts":%d,%s}' % (e, s, ts_ms, body), ts_ms)


def feed_live(run: Path, plcs: Sequence[str], fed: Synchronized[int], seconds: float) -> None:
    """Every PLC each 100 ms, now; one after the other within them. A process of its own. ``fed``
    counts messages.
    """
    steps = [body for _, body in bodies(columns(600, 0, SCAN_MS), "all")]
    named = {p: p.encode() for p in plcs}
    sources = {plc: Source(run, plc) for plc in plcs}
    begin_s = time.monotonic()
    for n in range(int(seconds * 1e3 / SCAN_MS)):
        for plc, source in sources.items():
            body = steps[n % len(steps)].replace(b'"all"', b'"%s"' % named[plc])
            publish(source, now_ms(), body)
            source.turn()
        time.sleep(max(0.0, begin_s + (n + 1) * SCAN_MS / 1e3 - time.monotonic()))
        fed.value += len(plcs)
    for source in sources.values():
        source.drain()
        source.close()


class World:
    """The store and the historian of a site that is fed from here."""

    def __init__(self, run: Path, plcs: Sequence[str], named: list[dict[str, Any]]) -> None:
        self.run = run
        groups = [{"name": "db500", "scan": f"{SCAN_MS}ms", "fields": named}]
        config = {
            "site": "bench", "locatario": "acme", "paths": {"state": str(run), "runtime": str(run)},
            "plcs": [{"id": p, "host": "127.0.0.1", "groups": groups} for p in plcs],
            "store": {"min_free": "0MiB"}, "history": {"min_free": "0MiB"},
        }  # fmt: skip
        (run / "conf").mkdir()
        file = run / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        rendered = render.render(loader.load(file, {}))
        self.store = Service(rendered["store_forward"])
        self.historian = Service(rendered["historian"])
        self.store.wait_ready()
        self.historian.wait_ready()

    def rows_new(self) -> int:
        """Of the messages that were not moved on yet."""
        return self._recent("coalesce(sum(rows), 0)")

    def _recent(self, what: str) -> int:
        path = self.run / "history" / "recent.db"
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            return int(db.execute(f"SELECT {what} FROM block").get)

    def hours_open(self) -> int:
        """Hours that are not condensed; in service the current one, and a while the one before."""
        growing = (self.run / "history" / "raw").rglob("*.0.db")
        return max(self._recent("count(DISTINCT hour_ms)"), len(list(growing)))

    def newest_ms(self) -> int:
        """Of what is in the history."""
        history = History(self.run / "history")
        try:
            return max((s.last_ms or 0 for s in history.series(field="r0")), default=0)
        finally:
            history.close()

    def feed_past(self, plc: str, rows: Columns) -> float:
        """As fast as it is taken; seconds until the history has the last."""
        source = Source(self.run, plc)
        began_s = time.monotonic()
        for n, (ts_ms, body) in enumerate(bodies(rows, plc)):
            publish(source, ts_ms, body)
            if n % 50 == 49:
                source.turn()
                source.drain(120, left=KEEP_WINDOW // 2)
        source.drain(120)
        last_ms = int(rows.ts_ms[-1])
        until(lambda: self.newest_ms() >= last_ms, 600, self.historian.stderr)
        source.close()
        return time.monotonic() - began_s

    def close(self) -> None:
        self.historian.end()
        self.store.end()


@contextmanager
def world(plcs: Sequence[str], named: list[dict[str, Any]]) -> Iterator[World]:
    """Both processes run."""
    with run_folder() as run:
        it = World(run, plcs, named)
        try:
            yield it
        finally:
            it.close()


def live(seconds: float) -> Figures:
    """CPU and memory at full rate."""
    plcs = [f"prensa-{n + 1:02d}" for n in range(PLCS)]
    with world(plcs, fields()) as w:
        context = multiprocessing.get_context("spawn")
        fed = context.Value("q", 0)
        args = (w.run, plcs, fed, seconds + 2 * SETTLE_S)
        feeder = context.Process(target=feed_live, args=args)
        feeder.start()
        try:
            until(lambda: fed.value, 30, "the feeder does not start")
            time.sleep(SETTLE_S)
            pids = {"historian": w.historian.pid, "store": w.store.pid, "feeder, apart": feeder.pid}
            cpus = {name: Cpu([pid]) for name, pid in pids.items() if pid}
            written_mb, began_s = disk_mb([w.historian.pid]), time.monotonic()
            begun = fed.value
            idle = idle_percent(seconds)
            figures = {f"% of a core, {name}": cpu.percent() for name, cpu in cpus.items()}
            written_mb = disk_mb([w.historian.pid]) - written_mb
            took_s = time.monotonic() - began_s
            values_s = (fed.value - begun) * VALUES / took_s
            newest_ms = w.newest_ms()
            return {
                "values/s": values_s,
                **figures, "% idle, whole machine": idle,
                "messages not moved on": w.rows_new(),
                "MB PSS historian": pss_mb([w.historian.pid]),
                "kB/s written to disk, historian": 1e3 * written_mb / took_s,
                "s from read to history, at most": (now_ms() - newest_ms) / 1e3,
            }  # fmt: skip
        finally:
            feeder.terminate()
            feeder.join()


def folder_bytes(folder: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file())


def keeping() -> Figures:
    """Bytes a value, once the hours are complete."""
    steps = KEEPING_S * 1_000 // SCAN_MS
    begin_ms = now_ms() // HOUR_MS * HOUR_MS - 5 * HOUR_MS
    with world(["prensa-01"], fields()) as w:
        cpu_s = _cpu_s(w.historian)
        took_s = w.feed_past("prensa-01", columns(steps, begin_ms, SCAN_MS))
        folder = w.run / "history"
        until(lambda: w.hours_open() == 0, 300, w.historian.stderr)
        cpu_s = _cpu_s(w.historian) - cpu_s
        memory_mb = pss_mb([w.historian.pid])
        assert w.historian.terminate() == 0
        recent = sum(f.stat().st_blocks * 512 for f in folder.glob("recent.db*"))
        return {
            "bytes a value": (folder_bytes(folder) - recent) / (steps * VALUES),
            "MB of recent.db beside": recent / 1e6,
            "ms CPU per 100,000 values": cpu_s * 1e3 / (steps * VALUES / 1e5),
            "messages/s taken": steps / took_s,
            "MB PSS historian, after it": memory_mb,
        }


def _cpu_s(service: Service) -> float:
    return float(sum(psutil.Process(service.pid).cpu_times()[:2]))


def asking() -> Figures:
    """A day of raw values and of roll-ups, a month of roll-ups, 1,000 points or nearly."""
    end_ms = now_ms() // HOUR_MS * HOUR_MS
    day = columns(DAY_MS // SCAN_MS, end_ms - DAY_MS, SCAN_MS, SMALL)
    month = columns(30 * DAY_MS // 10_000, end_ms - 30 * DAY_MS, 10_000, SMALL)
    return {
        **asked(day, {"a day, from raw": {"step_ms": 87_000}, "a day": {"points": 1_000}}),
        **asked(month, {"a month": {"points": 1_000}}),
    }


def asked(past: Columns, questions: dict[str, dict[str, int]]) -> Figures:
    """Milliseconds of each question about the whole of it, files opened anew each time."""
    named = [f for f in fields() if int(f["name"][1:]) < 4]
    begin_ms, end_ms = int(past.ts_ms[0]), int(past.ts_ms[-1])
    figures: dict[str, float] = {}
    with world(["prensa-01"], named) as w:
        w.feed_past("prensa-01", past)
        folder = w.run / "history"
        until(lambda: w.hours_open() <= 2, 600, w.historian.stderr)
        for name, how in questions.items():
            args = {"series": [["acme", "prensa-01", "db500", "", "r0"]],
                    "begin_ms": begin_ms, "end_ms": end_ms, **how}  # fmt: skip
            took_ms = []
            for _ in range(ASKED):
                history = History(folder)
                began_s = time.perf_counter()
                points = len(answer(history, "rolled", args)["series"][0]["begin_ms"])
                took_ms.append((time.perf_counter() - began_s) * 1e3)
                history.close()
                assert points > 500, name
            figures[f"ms, {name}"] = statistics.median(took_ms)
    return figures


def scans(reads_ns: list[int]) -> list[int]:
    """When each began: 200 values are more than one request."""
    begun = reads_ns[:1]
    for at in reads_ns[1:]:
        if at - begun[-1] > SCAN_MS / 2 * 1e6:
            begun.append(at)
    return begun


def jitter(seconds: float, history: bool) -> Figures:
    """|interval - 100 ms| of ten readers of 200 values."""
    with ExitStack() as stack:
        changes: dict[str, Any] = {"history": {"min_free": "0MiB"}} if history else {}
        box = Box(REAL_PLCS, f"{SCAN_MS}ms", **changes)
        for entry in box.config["plcs"]:
            (group,) = entry["groups"]
            del group["layout"]
            group["fields"] = fields()
        stack.enter_context(box)
        names = [p["id"] for p in box.config["plcs"]]
        for name in names:
            box.wait_for_messages(name, 1, timeout_s=60)
        time.sleep(SETTLE_S)
        since = {n: len(box.simulator.reads_ns(n)) for n in names}
        cpu = Cpu([box.site.pid("historian")]) if history else None
        time.sleep(seconds)
        more = {"% of a core, historian": cpu.percent()} if cpu else {}
        reads = [scans(box.simulator.reads_ns(n)[since[n] :]) for n in names]
        ends = {f: statistics.median(off(r)[f] for r in reads) for f in off(reads[0])}
        return {**ends, **more}


def bench(options: Options) -> list[Result]:
    """Whole machine, then bytes, then questions, then readers."""
    seconds, rounds = options.seconds or (10 if options.quick else 300), options.rounds or 1
    results: list[Result] = []

    def table(case: str, measure: Callable[[], Figures]) -> None:
        done: list[Round] = [(measure(), {}) for _ in range(rounds)]
        results.extend(rows("history", case, done))

    table(f"{PLCS} PLCs × {VALUES} values at 10 Hz, {seconds:g} s", partial(live, seconds))
    table(f"{KEEPING_S} s of one PLC × {VALUES} values at 10 Hz", keeping)
    table("questions", asking)
    done: list[Round] = []
    for n in range(rounds):
        order = (True, False) if n % 2 else (False, True)
        got = {on: jitter(seconds / 5, on) for on in order}
        done.append((got[True], {"without": got[False]}))
    results += rows("history", f"readers' jitter, {REAL_PLCS} × {VALUES} at 10 Hz", done)
    return results
