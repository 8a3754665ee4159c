"""The mirror process: what the source shows now is what the target shows, or nothing is written.

It never replays: only the newest image counts, and one that is old, bad or uncertain stops it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from bus import topology
from bus.frames import Raw
from services.mirror.audit import Audit
from services.mirror.changes import Range, pieces
from services.mirror.guard import Guard, WriteRefused
from services.mirror.target import Target
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.failpoints import hit
from services.runtime.process import Process

BACKOFF_S, BACKOFF_MAX_S = 0.5, 15.0
TICK_S = 0.1
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Mirror:
    """One source group, one target range."""

    def __init__(self, process: Process) -> None:
        self.process = process
        config: dict[str, Any] = process.config["mirror"]
        source: dict[str, Any] = process.config["source_group"]
        self.config = config
        self.name: str = config["name"]
        self._first: int = source["start"]
        maps = config["maps"] or [
            {"from": source["start"], "length": source["length"], "to": config["target"]["start"]}
        ]
        self._ranges = [Range(m["from"], m["length"], m["to"]) for m in maps]
        commit = config["commit"] or {}
        self._begin: int | None = commit.get("begin")
        self._end: int | None = commit.get("end")
        self._mark: int | None = commit.get("offset")
        self._toggle = commit.get("kind") == "toggle"
        self._watchdog: dict[str, int] | None = config["watchdog"]
        self._guard = Guard(config["target"]["db"], self._allowed())
        self._target: Target | None = None
        self._watched = -1
        """The target's descriptor in the loop, kept because it is closed when it is forgotten."""
        self._shown: bytes | None = None
        """What the target shows; None when that is unknown."""
        self._image: Raw | None = None
        """The newest good image, until it is written."""
        self._heard_s = 0.0
        self._full_s = 0.0
        self._counter = 0
        self._attempts = 0
        self._next_try_s = 0.0
        self._next_write_s = 0.0
        self._status = ""
        self._why = "waiting for the source"
        self._last_write_ms = 0
        self._watchdog_shows: int | None = None
        self.audit = Audit(process.state_dir / f"mirror-{self.name}.audit.jsonl")
        stats = process.stats
        name = "plc_edge_mirror_writes_total"
        self._written = stats.counter(name, mirror=self.name, result="ok")
        self._failed = stats.counter(name, mirror=self.name, result="failed")
        self._refused = stats.counter(name, mirror=self.name, result="refused")
        self._bytes = stats.counter("plc_edge_mirror_written_bytes_total", mirror=self.name)
        self._mismatch = stats.counter("plc_edge_mirror_mismatches_total", mirror=self.name)
        self._lag = stats.histogram("plc_edge_mirror_lag_seconds", LAG_SECONDS, mirror=self.name)
        self._last = stats.gauge("plc_edge_mirror_last_write_timestamp_seconds", mirror=self.name)
        self._lag_ms = 0.0

    def _allowed(self) -> list[tuple[int, int]]:
        """All that may ever be written: the maps, the markers, the watchdog."""
        allowed = [(r.target, r.target + r.length) for r in self._ranges]
        allowed += [(o, o + 2) for o in (self._begin, self._end) if o is not None]
        allowed += [(o, o + 1) for o in (self._mark,) if o is not None]
        if self._watchdog is not None:
            allowed.append((self._watchdog["offset"], self._watchdog["offset"] + 1))
        return allowed

    def start(self) -> None:
        """Listens to the source's reader; writes nothing unless enabled."""
        if not self.config["enabled"]:
            self._say("disabled", "set `enabled: true` in the configuration to write")
            self.process.every(1.0, self._report)
            return
        raw = self.process.bus.connect("raw", self.config["source"]["plc"])
        raw.subscribe(topology.topic("raw", self.config["source"]["group"]))
        self._raw = raw
        self.process.on_readable(raw, self._receive)
        self.process.every(TICK_S, self._tick)
        self.process.every(1.0, self._report)
        self._say("degraded", self._why)

    # -- the source ----------------------------------------------------------------------

    def _receive(self) -> None:
        newest: Raw | None = None
        while (frame := self._raw.receive()) is not None:
            if isinstance(frame, Raw):
                newest = frame
        if newest is None:
            return
        if now_ms() - newest.ts_ms > topology.LIVE_MAX_AGE_MS:
            return  # history: a mirror shows now
        if newest.quality != "good" or len(newest.data) == 0:
            self._image = None
            self._stop(f"the source is {newest.quality}")
            return
        if newest.start != self._first or not self._covers(newest):
            self._image = None
            self._stop("the source's bytes are others than configured: run `plc-edge apply`")
            return
        self._heard_s = time.monotonic()
        self._image = newest
        self._write()

    def _covers(self, raw: Raw) -> bool:
        end = raw.start + len(raw.data)
        return all(raw.start <= r.source and r.source + r.length <= end for r in self._ranges)

    def _tick(self) -> None:
        if self._heard_s and time.monotonic() - self._heard_s > self.config["stale_after"]:
            self._heard_s = 0.0
            self._image = None
            self._stop("the source is silent")
        elif self._image is not None:
            if now_ms() - self._image.ts_ms > topology.LIVE_MAX_AGE_MS:
                self._image = None
            else:
                self._write()

    def _stop(self, why: str) -> None:
        """Nothing more is written; the watchdog says so, where there is one."""
        if self._status == "degraded" and self._why == why:
            return
        self.audit.write("stop", why=why)
        self._say("degraded", why)
        if self._watchdog is not None and not self.config["dry_run"]:
            try:
                self._show_watchdog(self._watchdog["stale"])
            except PlcUnavailable as e:
                self._lost(e)

    # -- the target ----------------------------------------------------------------------

    def _write(self) -> None:
        now_s = time.monotonic()
        image = self._image
        if image is None or now_s < max(self._next_try_s, self._next_write_s):
            return
        try:
            self._connect()
            self._copy(image)
        except PlcUnavailable as e:
            self._lost(e)
        except WriteRefused as e:
            self._refused.inc()
            self.audit.write("refused", why=str(e))
            self.process.event("error", "write_refused", str(e), mirror=self.name)
            self._image = None

    def _connect(self) -> None:
        if self._target is not None:
            return
        target = Target(self.config["target"], self.config["timeout"], self._guard)
        self._target = target
        self._shown = None
        self._watchdog_shows = None
        self._watched = target.fileno()
        self.process.on_readable(self._watched, self._look)
        marker = self._end if self._end is not None else self._mark
        if marker is not None:
            # Go on counting where the target stands: equal markers must never lie.
            size = 2 if self._end is not None else 1
            self._counter = int.from_bytes(target.read(marker, size))
        self._attempts = 0
        self.audit.write("start", host=self.config["target"]["host"], pdu=target.pdu_bytes)

    def _look(self) -> None:
        """The target says something unasked: most likely that it has gone."""
        try:
            if self._target is not None:
                self._target.check()
        except PlcUnavailable as e:
            self._lost(e)

    def _copy(self, image: Raw) -> None:
        target = self._target
        assert target is not None
        now_s = time.monotonic()
        if self._shown is not None and now_s - self._full_s >= self.config["full_every"]:
            self._shown = None
        full = self._shown is None
        limit = min(target.write_limit_bytes, self.config["consistent_bytes"])
        todo = pieces(self._ranges, self._shown, image.data, image.start, limit)
        self._image = None
        if self.config["dry_run"]:
            if todo:
                self._say_dry(todo)
            self._shown = image.data
            return
        if todo:
            # What the target shows is unknown until the last telegram is answered.
            self._shown = None
            self._mark_begin()
            for piece in todo:
                target.write(piece.start, piece.data)
                hit("mirror.after_piece")
                self._written.inc()
                self._bytes.inc(len(piece.data))
            self._mark_end()
            if self.config["verify"] and not self._verify(todo):
                return
        self._shown = image.data
        if full:
            self._full_s = now_s
            self.audit.write("full_write", pieces=len(todo), ts=image.ts_ms)
        if self._watchdog is not None:
            self._show_watchdog(self._watchdog["alive"])
        if todo:
            self._note_lag(image)
        if self.config["max_writes_per_s"]:
            self._next_write_s = now_s + len(todo) / self.config["max_writes_per_s"]
        self._say("ok", "")

    def _note_lag(self, image: Raw) -> None:
        self._last_write_ms = now_ms()
        lag_s = max(0.0, (self._last_write_ms - image.ts_ms) / 1_000)
        self._lag.observe(lag_s)
        self._lag_ms = lag_s * 1_000
        self._last.set(self._last_write_ms / 1_000)

    def _mark_begin(self) -> None:
        """begin ≠ end from here on: whoever reads the target now sees a copy in the making."""
        if self._begin is not None and self._target is not None:
            self._counter = (self._counter + 1) & 0xFFFF
            self._target.write(self._begin, self._counter.to_bytes(2))

    def _mark_end(self) -> None:
        if self._target is None:
            return
        if self._end is not None:
            self._target.write(self._end, self._counter.to_bytes(2))
        elif self._mark is not None:
            step = self._counter ^ 1 if self._toggle else self._counter + 1
            self._counter = step & 0xFF
            self._target.write(self._mark, bytes((self._counter,)))

    def _verify(self, written: list[Any]) -> bool:
        assert self._target is not None
        for piece in written:
            if self._target.read(piece.start, len(piece.data)) != piece.data:
                self._mismatch.inc()
                text = f"byte {piece.start} on reads back otherwise: somebody else writes there"
                self.audit.write("mismatch", start=piece.start, length=len(piece.data))
                self._say("degraded", text)
                return False
        return True

    def _show_watchdog(self, value: int) -> None:
        if self._watchdog is None or self._watchdog_shows == value:
            return
        self._connect()
        assert self._target is not None
        self._target.write(self._watchdog["offset"], bytes((value,)))
        self._watchdog_shows = value

    def _lost(self, error: PlcUnavailable) -> None:
        if self._watched >= 0:
            self.process.forget(self._watched)
        self._watched = -1
        self._target = None
        self._shown = None
        self._failed.inc()
        self._attempts += 1
        if self._why != error.message:
            self.audit.write("stop", why=error.message)
        self._say("down", error.message)
        delay_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(10, self._attempts - 1))
        self._next_try_s = time.monotonic() + delay_s * random.uniform(0.5, 1.0)

    # -- what is said of it --------------------------------------------------------------

    def _say_dry(self, todo: list[Any]) -> None:
        size_bytes = sum(len(p.data) for p in todo)
        text = f"dry run: would write {size_bytes} bytes in {len(todo)} telegrams"
        self.process.log.info(text, first=todo[0].start)
        self._say("ok", text)

    def _say(self, status: str, why: str) -> None:
        if status != self._status:
            level = {"ok": "info", "disabled": "info"}.get(status, "warning")
            self.process.event(level, f"mirror_{status}", why or "copying", mirror=self.name)
        changed = (status, why) != (self._status, self._why)
        self._status, self._why = status, why
        if changed:
            self._report()

    def _report(self) -> None:
        target = self.config["target"]
        self.process.state(
            self._status,
            source=f"{self.config['source']['plc']}/{self.config['source']['group']}",
            target=f"{target['host']} DB{target['db']}",
            why=self._why,
            lag_ms=round(self._lag_ms, 1),
            last_write_ms=self._last_write_ms,
            writes=self._written.value,
            bytes=self._bytes.value,
            mismatches=self._mismatch.value,
            refusals=self._refused.value,
        )

    def close(self) -> None:
        """Says that it stops, in the target too."""
        if self.config["enabled"]:
            self._stop("the mirror ends")
        if self._target is not None:
            self._target.close()


def setup(process: Process) -> Callable[[], None]:
    """Listens, and writes what changes."""
    mirror = Mirror(process)
    mirror.start()
    process.ready(mirror=mirror.name, enabled=mirror.config["enabled"])
    return mirror.close
