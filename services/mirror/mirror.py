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
from services.mirror.changes import Piece, Range, pieces
from services.mirror.guard import Guard, WriteRefused
from services.mirror.target import Target
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.failpoints import hit
from services.runtime.process import Process

BACKOFF_S, BACKOFF_MAX_S = 0.5, 15.0
TICK_S = 0.1
REPORT_S = 1.0
WAITING = "waiting for the source"
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
        self._watchdog: dict[str, int] | None = None if config["dry_run"] else config["watchdog"]
        self._guard = Guard(config["target"]["db"], self._allowed())
        self._target: Target | None = None
        self._background = Background(process)
        self._dialing = False
        self._watched = -1
        """The target's descriptor in the loop, kept because it is closed when it is forgotten."""
        self._shown: bytes | None = None
        """What the target shows; None when that is unknown."""
        self._image: Raw | None = None
        """The newest good image, until it is written."""
        self._heard_s = time.monotonic()
        """When the source was last heard of. Silence counts from the start: a target that still
        says "alive" must learn of a source that never comes back."""
        self._full_s = 0.0
        self._counter = 0
        self._attempts = 0
        """Failures since the target last took everything."""
        self._next_try_s = 0.0
        self._next_write_s = 0.0
        self._source_why = WAITING
        self._target_why = ""
        self._trouble = ""
        """Why nothing is copied: the source, the target's connection, what was seen in between."""
        self._said = ("", "")
        self._writing = False
        """Whether the audit's last word is "start"."""
        self._last_write_ms = 0
        self._bytes_before = 0.0
        self._watchdog_shows: int | None = None
        self.audit = Audit(process.state_dir / f"mirror-{self.name}.audit.jsonl")
        stats = process.stats
        name = "plc_edge_mirror_writes_total"
        self._written = stats.counter(name, mirror=self.name, result="ok")
        self._failed = stats.counter(name, mirror=self.name, result="failed")
        self._refused = stats.counter(name, mirror=self.name, result="refused")
        self._bytes = stats.counter("plc_edge_mirror_written_bytes_total", mirror=self.name)
        self._mismatch = stats.counter("plc_edge_mirror_mismatches_total", mirror=self.name)
        self._unlogged = stats.counter("plc_edge_mirror_audit_failed_total", mirror=self.name)
        self._lag = stats.histogram("plc_edge_mirror_lag_seconds", LAG_SECONDS, mirror=self.name)
        self._last = stats.gauge("plc_edge_mirror_last_write_timestamp_seconds", mirror=self.name)
        self._lag_ms = 0.0
        self._bytes_per_s = 0.0

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
        self.process.every(REPORT_S, self._beat)
        if self.config["enabled"]:
            self._raw = self.process.bus.connect("raw", self.config["source"]["plc"])
            self._raw.subscribe(topology.topic("raw", self.config["source"]["group"]))
            self.process.on_readable(self._raw, self._on_frames)
            self.process.every(TICK_S, self._tick)
        self._say()

    # -- the source ----------------------------------------------------------------------

    def _on_frames(self) -> None:
        self._listen()
        self._work()

    def _tick(self) -> None:
        self._listen()
        if self._image is not None and self._silent_s() * 1_000 > topology.LIVE_MAX_AGE_MS:
            self._image = None  # the target could not be written in time: now it is history
        self._work()

    def _silent_s(self) -> float:
        return time.monotonic() - self._heard_s

    def _listen(self) -> None:
        """Takes what the source has said; afterwards ``_source_why`` and ``_image`` hold."""
        newest: Raw | None = None
        while (frame := self._raw.receive()) is not None:
            if isinstance(frame, Raw):
                newest = frame
        if newest is not None and now_ms() - newest.ts_ms <= topology.LIVE_MAX_AGE_MS:
            self._heard_s = time.monotonic()
            if why := self._flaw(newest):
                self._stop(why)
            else:
                self._source_why = ""
                self._image = newest
        elif self._silent_s() > self.config["stale_after"]:
            self._stop("the source is silent")

    def _flaw(self, raw: Raw) -> str:
        """Why this image must not be written; empty when it may."""
        if raw.quality != "good" or not raw.data:
            return f"the source is {raw.quality}"
        end = raw.start + len(raw.data)
        covered = all(raw.start <= r.source and r.source + r.length <= end for r in self._ranges)
        if raw.start != self._first or not covered:
            return "the source's bytes are others than configured: run `plc-edge apply`"
        return ""

    def _stop(self, why: str) -> None:
        """Nothing more is written; the watchdog will say so, where there is one."""
        self._image = None
        if why != self._source_why:
            self._source_why = why
            self._end_writing(why)
            self._say()

    # -- the target ----------------------------------------------------------------------

    def _work(self) -> None:
        """Does what is due: writes the newest image, or shows that there is none."""
        now_s = time.monotonic()
        if self._dialing or now_s < self._next_try_s:
            return
        image = self._image if now_s >= self._next_write_s else None
        if image is None and (self._source_why in ("", WAITING) or self._watchdog_is("stale")):
            return
        if self._target is None:
            self._dialing = True
            self._background.run(self._dial, self._dialed)
            return
        try:
            if image is not None:
                self._copy(self._target, image)
            else:
                self._show_watchdog(self._target, "stale")
        except PlcUnavailable as e:
            self._lost(e)
        except WriteRefused as e:
            self._refused.inc()
            self._image = None
            if self._trouble != str(e):
                self._trouble = str(e)
                self.audit.write("refused", why=str(e))
                self.process.event("error", "write_refused", str(e), mirror=self.name)
            self._say()

    def _dial(self) -> tuple[Target, int]:
        """A connection and where its marker stands; blocks, so in a thread."""
        target = Target(self.config["target"], self.config["timeout"], self._guard)
        if self._end is not None:
            return target, int.from_bytes(target.read(self._end, 2))
        if self._mark is not None:
            return target, int.from_bytes(target.read(self._mark, 1))
        return target, 0

    def _dialed(self, result: tuple[Target, int] | Exception) -> None:
        self._dialing = False
        if isinstance(result, PlcUnavailable):
            self._lost(result)
            return
        if isinstance(result, Exception):
            raise result
        # Go on counting where the target stands: equal markers must never lie.
        self._target, self._counter = result
        self._shown = None
        self._watchdog_shows = None
        self._watched = self._target.fileno()
        self.process.on_readable(self._watched, self._look)
        # The source may have gone bad, or its image old, while the target took its time.
        self._tick()

    def _begin_writing(self, target: Target) -> None:
        if not self._writing and not self.config["dry_run"]:
            self._writing = True
            to = self.config["target"]
            self.audit.write("start", host=to["host"], db=to["db"], pdu=target.pdu_bytes)

    def _end_writing(self, why: str) -> None:
        if self._writing:
            self._writing = False
            self.audit.write("stop", why=why)

    def _look(self) -> None:
        """The target says something unasked: most likely that it has gone."""
        try:
            if self._target is not None:
                self._target.check()
        except PlcUnavailable as e:
            self._lost(e)

    def _copy(self, target: Target, image: Raw) -> None:
        now_s = time.monotonic()
        if self._shown is not None and now_s - self._full_s >= self.config["full_every"]:
            self._shown = None
        full = self._shown is None
        limit = min(target.write_limit_bytes, self.config["consistent_bytes"])
        todo = pieces(self._ranges, self._shown, image.data, image.start, limit)
        self._image = None
        if self.config["max_writes_per_s"]:
            self._next_write_s = now_s + len(todo) / self.config["max_writes_per_s"]
        if self.config["dry_run"]:
            if todo:
                self._say_dry(todo)
        elif todo:
            # What the target shows is unknown until the last telegram is answered.
            self._shown = None
            if not self._attempts:
                self._begin_writing(target)
            if not self._write(target, todo):
                return
            self._begin_writing(target)
            self._note_lag(image)
            if full:
                self.audit.write("full_write", pieces=len(todo), ts=image.ts_ms)
        if full:
            self._full_s = now_s
        self._shown = image.data
        self._show_watchdog(target, "alive")
        self._fine()

    def _write(self, target: Target, todo: list[Piece]) -> bool:
        """False where it ended half-way: the markers stay apart, everything is written again."""
        if self._begin is not None:
            # begin ≠ end from here on: whoever reads the target sees a copy in the making.
            self._counter = (self._counter + 1) & 0xFFFF
            target.write(self._begin, self._counter.to_bytes(2))
        for piece in todo:
            target.write(piece.start, piece.data)
            hit("mirror.after_piece")
            self._written.inc()
            self._bytes.inc(len(piece.data))
            # A slow target takes minutes for a large block; the source may go bad meanwhile.
            self._listen()
            if self._source_why or self.process.stopping:
                return False
        if self.config["verify"] and not self._verify(target, todo):
            return False
        if self._end is not None:
            target.write(self._end, self._counter.to_bytes(2))
        elif self._mark is not None:
            self._counter = (self._counter ^ 1 if self._toggle else self._counter + 1) & 0xFF
            target.write(self._mark, bytes((self._counter,)))
        return True

    def _note_lag(self, image: Raw) -> None:
        self._last_write_ms = now_ms()
        lag_s = max(0.0, (self._last_write_ms - image.ts_ms) / 1_000)
        self._lag.observe(lag_s)
        self._lag_ms = lag_s * 1_000
        self._last.set(self._last_write_ms / 1_000)

    def _verify(self, target: Target, written: list[Piece]) -> bool:
        for piece in written:
            if target.read(piece.start, len(piece.data)) != piece.data:
                self._mismatch.inc()
                text = f"byte {piece.start} on reads back otherwise: somebody else writes there"
                if self._trouble != text:
                    self._trouble = text
                    self.audit.write("mismatch", start=piece.start, length=len(piece.data))
                    self._say()
                return False
        return True

    def _watchdog_is(self, what: str) -> bool:
        """Whether the byte shows "alive" or "stale" already; true where there is none."""
        return self._watchdog is None or self._watchdog_shows == self._watchdog[what]

    def _show_watchdog(self, target: Target, what: str) -> None:
        """Writes the byte "alive" or "stale", where there is one and it shows something else."""
        if self._watchdog is None or self._watchdog_is(what):
            return
        target.write(self._watchdog["offset"], bytes((self._watchdog[what],)))
        self._watchdog_shows = self._watchdog[what]
        self.audit.write("watchdog", shows=what)
        self._attempts = 0
        self._target_why = ""
        self._say()

    def _fine(self) -> None:
        self._attempts = 0
        self._target_why = self._trouble = ""
        self._say()

    def _lost(self, error: PlcUnavailable) -> None:
        if self._watched >= 0:
            self.process.forget(self._watched)
        self._watched = -1
        self._target = None
        self._shown = None
        self._failed.inc()
        self._attempts += 1
        self._target_why = error.message
        self._end_writing(error.message)  # once: what is tried again in vain is only counted
        self._say()
        delay_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(10, self._attempts - 1))
        self._next_try_s = time.monotonic() + delay_s * random.uniform(0.5, 1.0)

    # -- what is said of it --------------------------------------------------------------

    def _say_dry(self, todo: list[Piece]) -> None:
        size_bytes = sum(len(p.data) for p in todo)
        text = f"dry run: would write {size_bytes} bytes in {len(todo)} telegrams"
        self.process.log.info(text, first=todo[0].start)

    def _standing(self) -> tuple[str, str]:
        """(status, why)."""
        if not self.config["enabled"]:
            return "disabled", "set `enabled: true` in the configuration to write"
        if self._target_why:
            return "down", self._target_why
        if why := self._source_why or self._trouble:
            return "degraded", why
        return "ok", "dry run: nothing is written" if self.config["dry_run"] else ""

    def _say(self) -> None:
        """Reports when how it stands has changed."""
        status, why = self._standing()
        if status != self._said[0]:
            level = {"ok": "info", "disabled": "info"}.get(status, "warning")
            self.process.event(level, f"mirror_{status}", why or "copying", mirror=self.name)
        if (status, why) != self._said:
            self._said = (status, why)
            self._report()

    def _beat(self) -> None:
        self._bytes_per_s = (self._bytes.value - self._bytes_before) / REPORT_S
        self._bytes_before = self._bytes.value
        self._unlogged.value = self.audit.failed
        self._report()

    def _report(self) -> None:
        target = self.config["target"]
        self.process.state(
            self._said[0],
            source=f"{self.config['source']['plc']}/{self.config['source']['group']}",
            target=f"{target['host']} DB{target['db']}",
            why=self._said[1],
            lag_ms=round(self._lag_ms, 1),
            last_write_ms=self._last_write_ms,
            writes=self._written.value,
            bytes=self._bytes.value,
            bytes_per_s=self._bytes_per_s,
            mismatches=self._mismatch.value,
            refusals=self._refused.value,
        )

    def close(self) -> None:
        """Says that it stops; in the target too, if that is at hand."""
        self._stop("the mirror ends")
        if self._target is not None:
            try:
                self._show_watchdog(self._target, "stale")
            except PlcUnavailable as e:
                self.process.log.warning("the watchdog was not told of the end", error=e.message)
            self._target.close()


def setup(process: Process) -> Callable[[], None]:
    """Listens, and writes what changes."""
    mirror = Mirror(process)
    mirror.start()
    process.ready(mirror=mirror.name, enabled=mirror.config["enabled"])
    return mirror.close
