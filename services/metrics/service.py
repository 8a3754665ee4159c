"""The metrics process: live frames in, HTTP out.

Two threads and one lock: the run loop that every process has takes frames in, an event loop in a
second thread serves HTTP. A third asks supervisord, which may hang.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from services.metrics.certificates import LOOK_S, ends
from services.metrics.event_log import EventLog
from services.metrics.processes import Poller, ProcessTable
from services.metrics.site import SPARK_STEP_S, Site
from services.metrics.stream import event_json
from services.metrics.web import Web
from services.runtime import secrets, serving
from services.runtime.clock import is_trusted
from services.runtime.process import Process
from services.runtime.process_table import Row, SupervisorUnavailable, asked_to_end

# Frames taken in one go: a burst must not keep HTTP from the lock for longer than ~10 ms.
BATCH = 200
MEASURE_EVERY = 5


def setup(process: Process) -> Callable[[], None]:
    """Opens the live wire and the HTTP port; returns ``close``."""
    config = process.config
    site = Site(config)
    table = ProcessTable(config["processes"])
    saved = process.runtime / "metrics-counters.json"
    _restore(process, site, saved)
    kept = EventLog(process.state_dir, process.log)
    web = Web(site, table, process.runtime, kept)
    panel = config["metrics"]
    listener = serving.listen("metrics", panel["host"], panel["port"])
    tls = serving.certificate("metrics", panel.get("tls"))
    password = secrets.resolve(panel["password"]) if panel.get("password") else None
    web.start(listener, panel.get("username"), password, tls)

    live = process.bus.bind("live")
    live.subscribe(b"")

    def take_frames() -> None:
        with site.lock:
            for _ in range(BATCH):
                frame = live.receive()
                if frame is None:
                    return
                site.apply(frame)

    polls = 0

    def take_table(answer: list[Row] | SupervisorUnavailable) -> None:
        nonlocal polls
        asked: frozenset[str] = frozenset()
        if not isinstance(answer, SupervisorUnavailable) and (again := table.restarted(answer)):
            asked = asked_to_end(config["supervisor_socket"], again)
        with site.lock:
            if isinstance(answer, SupervisorUnavailable):
                events = table.unreachable(str(answer))
            else:
                events = table.update(answer, asked)
            for event in events:
                site.add_event(event)
        for event in events:
            process.log.write(event.level, event.text, {"code": event.code, **event.fields})
        if polls % MEASURE_EVERY == 0:
            table.measure()
        polls += 1

    def each_second() -> None:
        if web.failed is not None:
            raise RuntimeError("the HTTP server failed") from web.failed
        process.count_bus()
        with site.lock:
            site.aggregate.apply(process.stats.frame())
            site.clock_is_right = is_trusted(config["clock_sync"])
            web.status.tick()
            if site.aggregate.bases_changed:
                _save(process, site, saved)
            events = site.take_unkept()
        kept.add([event_json(e) for e in events])

    def certificates() -> None:
        found = ends(process.config["certificates"], process.log)
        with site.lock:
            site.certificates = found

    def sparks() -> None:
        with site.lock:
            site.tick_sparks()

    def reconfigure(new: dict[str, Any]) -> None:
        with site.lock:
            site.configure(new)
            table.configure(new["processes"])

    poller = Poller(config["supervisor_socket"], take_table)
    poller.start()
    process.on_readable(live, take_frames)
    process.every(1.0, each_second, first_s=0.0)
    process.every(SPARK_STEP_S, sparks)
    process.every(LOOK_S, certificates, first_s=0.0)
    process.on_config(reconfigure)
    scheme = "https" if tls else "http"
    process.ready(url=f"{scheme}://{panel['host']}:{listener.getsockname()[1]}/")

    def close() -> None:
        poller.stop()
        web.stop()
        listener.close()

    return close


def _restore(process: Process, site: Site, file: Path) -> None:
    try:
        site.aggregate.restore(orjson.loads(file.read_bytes()))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as e:
        process.log.warning("counters of before not taken up", file=str(file), error=repr(e))


def _save(process: Process, site: Site, file: Path) -> None:
    temporary = file.with_suffix(".new")
    try:
        temporary.write_bytes(orjson.dumps(site.aggregate.bases()))
        os.replace(temporary, file)
    except OSError as e:
        process.log.warning("counters not saved", file=str(file), error=str(e))
        return  # tried again in a second
    site.aggregate.bases_changed = False
