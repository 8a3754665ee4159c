"""What the historian does beside taking rows: moves them on and forgets the oldest, in slices short
enough that no commit waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from services.consumer.database import DAMAGE, FULL
from services.historian.compact import Compactor, Say, Steps
from services.historian.hours import GROWING, places
from services.historian.keeping import Keeping
from services.historian.recent import Recent
from services.historian.shapes import DAY_MS, HOUR_MS, MINUTE_MS, Stream

# A stream's rows in recent.db before they are moved: a question reads 1,000 rows of JSON in some
# 20 ms; more at once compress better.
FLUSH_ROWS = 1_000
FLUSH_BYTES = 512 * 1024
# An hour is condensed so long after its end: what is behind comes by then.
GRACE_MS = 5 * MINUTE_MS
# And again, where rows came late, so long after the last time.
AGAIN_MS = 10 * MINUTE_MS
SLICE_S = 0.012
LOOK_S = 5.0
RETRY_S = 60.0


class Work:
    """One box's. ``now_ms`` is the wall clock."""

    def __init__(
        self,
        recent: Recent,
        compactor: Compactor,
        keeping: Keeping,
        say: Say,
        folder: Path,
        now_ms: Callable[[], int],
    ) -> None:
        self._recent, self._compactor, self._keeping = recent, compactor, keeping
        self._say, self._folder, self._now_ms = say, folder, now_ms
        self._held: dict[tuple[Stream, int], list[int]] = {}
        """(stream, hour) → rows and bytes in recent.db."""
        self._flushing: tuple[Steps, tuple[Stream, int]] | None = None
        self._condensing: tuple[Steps, int] | None = None
        self._condensed: dict[int, int] = {}
        """Hour → when it was condensed last."""
        self._look_s = 0.0
        self._pause_s = 0.0
        self.failing = ""
        """Why it cannot go on now; "" where it can."""

    def begin(self) -> None:
        """From what is committed."""
        self._held = {(s, h): [rows, size] for s, h, rows, size in self._recent.held()}

    def added(self, stream: Stream, hour_ms: int, rows: int, size_bytes: int) -> None:
        """These were committed."""
        held = self._held.setdefault((stream, hour_ms), [0, 0])
        held[0] += rows
        held[1] += size_bytes

    @property
    def rows_held(self) -> int:
        """How many rows are in recent.db."""
        return sum(rows for rows, _ in self._held.values())

    def slice(self, seconds: float = SLICE_S) -> None:
        """Works for so long."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            if not self._step():
                return

    def _step(self) -> bool:
        """One step of each of both jobs; False where there is nothing to do."""
        if time.monotonic() < self._pause_s:
            return False
        self._choose()
        worked = False
        try:
            if self._flushing is not None:
                worked = True
                steps, key = self._flushing
                if next(steps, _DONE) is _DONE:
                    self._flushing = None
                    self._restore(key[1])
            if self._condensing is not None:
                worked = True
                steps, hour_ms = self._condensing
                if next(steps, _DONE) is _DONE:
                    self._condensing = None
                    self._condensed[hour_ms] = self._now_ms()
                    self._restore(hour_ms)
            if worked and self.failing:
                self.failing = ""
        except FULL as e:
            self._fail("disk_full", f"the history waits for the disk: {e}")
        except OSError as e:
            self._fail("disk_full", f"the history waits for the disk: {e}")
        except DAMAGE as e:
            self._mend(e)
        return worked

    def _fail(self, code: str, why: str) -> None:
        self._stop()
        self._pause_s = time.monotonic() + RETRY_S
        if not self.failing:
            self._say("warning", f"history_{code}", why)
        self.failing = why

    def _stop(self) -> None:
        for job in (self._flushing, self._condensing):
            if job is not None:
                job[0].close()
        self._flushing = self._condensing = None
        self.begin()

    def _mend(self, error: Exception) -> None:
        """A growing file cannot be written: what can be read of it goes to a condensed one."""
        if not self._recent.is_sound():
            self._recent.renew(str(error))
        damaged_ms = self._flushing[1][1] if self._flushing is not None else None
        self._fail("damaged", f"a file of the history is damaged: {error}")
        if damaged_ms is not None:
            self._pause_s = 0.0
            self._condensing = self._compactor.condense(damaged_ms), damaged_ms

    def _restore(self, hour_ms: int) -> None:
        """What is left of an hour, or came meanwhile."""
        self._held = {key: held for key, held in self._held.items() if key[1] != hour_ms}
        for stream, _, rows, size in self._recent.held(hour_ms):
            self._held[stream, hour_ms] = [rows, size]

    def _choose(self) -> None:
        if self._flushing is None:
            busy = self._condensing[1] if self._condensing is not None else -1
            for (stream, hour_ms), (rows, size) in self._held.items():
                if hour_ms != busy and (rows >= FLUSH_ROWS or size >= FLUSH_BYTES):
                    steps = self._compactor.flush(stream, hour_ms)
                    self._flushing = steps, (stream, hour_ms)
                    del self._held[stream, hour_ms]  # what comes meanwhile counts from here
                    break
        if self._condensing is None and time.monotonic() >= self._look_s:
            self._look_s = time.monotonic() + LOOK_S
            self._keeping.look()
            self._recent.prune(self._keeping.raw_from_ms())
            due_ms = self.due()
            if due_ms is not None and not self._is_large(due_ms):
                self._look_s = 0.0
                if self._flushing is not None and self._flushing[1][1] == due_ms:
                    return
                self._condensing = self._compactor.condense(due_ms), due_ms

    def _is_large(self, hour_ms: int) -> bool:
        """Whether rows of an hour wait to be moved first."""
        return any(h == hour_ms and r >= FLUSH_ROWS for (_, h), (r, _) in self._held.items())

    def due(self) -> int | None:
        """The oldest hour that is over and not condensed. It waits for one of the day before it
        of which more has come: from there its counters count on.
        """
        now_ms = self._now_ms()
        open_ = {p.hour_ms for p in places(self._folder) if p.number == GROWING}
        open_ |= {hour_ms for _, hour_ms in self._held}
        waits_ms = 0
        for hour_ms in sorted(open_):
            if hour_ms < waits_ms:
                continue
            again_ms = self._condensed.get(hour_ms, -AGAIN_MS) + AGAIN_MS
            if hour_ms + HOUR_MS + GRACE_MS <= now_ms and again_ms <= now_ms:
                return hour_ms
            waits_ms = hour_ms + DAY_MS
        return None

    def close(self) -> None:
        """Stops where it stands."""
        for job in (self._flushing, self._condensing):
            if job is not None:
                job[0].close()


_DONE = object()
