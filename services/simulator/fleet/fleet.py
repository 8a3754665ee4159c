"""All boxes of one process: their clock, their outages, their accounts.

Verbs of its control socket: ``away SHARE [FOR]`` pulls the cables of that share of the boxes (for
so long), ``back`` puts all of them back, ``quiet`` makes no more messages, ``status`` counts,
``account FILE`` writes what each PLC has sent.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.runtime.clock import now_ms
from services.runtime.process import Process, void
from services.runtime.units import duration_s
from services.simulator.fleet.box import Box
from services.simulator.fleet.plan import Plan

# Messages that came due within it go together, as those that share a commit of the outbox.
TICK_S = 0.01
# A box is looked after in one of so many ticks.
TICKS_A_SECOND = 100
# Boxes that begin in a second: a TLS handshake costs the broker some ms.
BEGIN_A_SECOND = 100
# At the end: how long what is in flight may take, and goodbyes.
DRAIN_S, CLOSE_S = 20.0, 5.0


@dataclass(frozen=True, slots=True)
class Outage:
    """``share`` of the boxes lose their line for ``for_s``, ``after_s`` after all were there."""

    share: float
    after_s: float
    for_s: float | None

    @classmethod
    def parse(cls, text: str) -> Outage:
        """``0.5:60s:5m``. Raises ValueError with the form."""
        try:
            share, after, lasts = text.split(":")
            return cls(_share(share), duration_s(after), duration_s(lasts))
        except ValueError as e:
            raise ValueError(f"{text!r} is no SHARE:AFTER:FOR like 0.5:60s:5m ({e})") from None


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {text}")
    return share


class Fleet:
    """Boxes ``first`` to ``first + count - 1``, each with ``backlog_s`` of messages that wait."""

    def __init__(
        self,
        process: Process,
        plan: Plan,
        count: int,
        *,
        first: int = 1,
        backlog_s: float = 0.0,
        outages: list[Outage] | None = None,
        seed: int = 1,
    ) -> None:
        self._process, self._plan = process, plan
        self._count, self._first = count, first
        self._backlog_ms = round(backlog_s * 1_000)
        self._outages = outages or []
        self._random = random.Random(seed)
        # The wall clock may step; a box's schedule must not.
        self._zero_ms, self._zero_s = now_ms(), time.monotonic()
        self.boxes: list[Box] = []
        self.quiet = False
        self.ready = False
        """All boxes have connected once."""
        self._due: list[tuple[int, int]] = []
        """(when its next message is due, box), a heap."""
        self._turn = 0
        self._said: set[str] = set()
        plan.box(first + count - 1)  # the longest names

    def open(self) -> None:
        """Begins with the first boxes."""
        self._process.every(TICK_S, self._tick)
        self._process.every(0.1, self._look)

    def _now_ms(self) -> int:
        return self._zero_ms + int((time.monotonic() - self._zero_s) * 1_000)

    def _tick(self) -> None:
        now = self._now_ms()
        begun = int((time.monotonic() - self._zero_s) * BEGIN_A_SECOND) + 1
        for n in range(len(self.boxes), min(begun, self._count)):
            box = Box(self._process, self._plan, self._first + n, now, self._backlog_ms)
            self.boxes.append(box)
            heapq.heappush(self._due, (box.rows.next_ms(), n))
        due = self._due
        while due and due[0][0] <= now and not self.quiet:
            n = due[0][1]
            self.boxes[n].read(now)
            next_ms = max(self.boxes[n].rows.next_ms(), now + self._plan.commit_ms)
            heapq.heapreplace(due, (next_ms, n))
        # A loop that is late leaves ticks out, but no box.
        turn = int((time.monotonic() - self._zero_s) / TICK_S)
        for missed in range(max(self._turn, turn - TICKS_A_SECOND), turn):
            for n in range(missed % TICKS_A_SECOND, len(self.boxes), TICKS_A_SECOND):
                self.boxes[n].look_after(now)
        self._turn = turn

    def _look(self) -> None:
        """Says once what is wrong, and when all are there."""
        for box in self.boxes:
            if box.code and box.code not in self._said and not box.line.pulled:
                self._said.add(box.code)
                self._process.log.warning("a box is not connected", site=box.site, code=box.code,
                                          error=box.message)  # fmt: skip
        up = sum(box.status_now == "ok" for box in self.boxes)
        if not self.ready and up == self._count:
            self.ready = True
            for outage in self._outages:
                self._plan_outage(outage)

    # -- what can happen to it -----------------------------------------------------------

    def _plan_outage(self, outage: Outage) -> None:
        at_s = time.monotonic() + outage.after_s
        self._process.at(at_s, lambda: void(self.away(outage.share, outage.for_s)))

    def away(self, share: float, for_s: float | None = None) -> int:
        """Pulls the cables of some boxes; how many."""
        there = [box for box in self.boxes if not box.line.pulled]
        chosen = self._random.sample(there, min(len(there), round(share * len(self.boxes))))
        for box in chosen:
            box.line.pull()
        if for_s is not None:
            self._process.at(time.monotonic() + for_s, lambda: self._plug(chosen))
        return len(chosen)

    def back(self) -> None:
        """Puts all of them back."""
        self._plug(self.boxes)

    def _plug(self, boxes: list[Box]) -> None:
        for box in boxes:
            box.line.plug()

    def do(self, line: str) -> str:
        """Does what a line of the control socket says."""
        verb, *words = line.split()[:3] or [""]
        try:
            if verb == "status" and not words:
                return "ok " + json.dumps(self.status())
            if verb == "away" and words:
                for_s = duration_s(words[1]) if len(words) > 1 else None
                return f"ok {self.away(_share(words[0]), for_s)} boxes"
            if verb == "back" and not words:
                self.back()
                return "ok"
            if verb == "quiet" and not words:
                self.quiet = True
                return "ok"
            if verb == "account" and len(words) == 1:
                self.account(Path(words[0]))
                return "ok"
        except (ValueError, OSError) as e:
            return f"error: {e}"
        return f"error: {line!r} is none of away SHARE [FOR], back, quiet, status, account FILE"

    def status(self) -> dict[str, Any]:
        """Sums over all boxes."""
        boxes = self.boxes
        return {
            "boxes": self._count,
            "connected": sum(box.status_now == "ok" for box in boxes),
            "away": sum(box.line.pulled for box in boxes),
            "made": sum(box.rows.count for box in boxes),
            "acknowledged": sum(box.delivered_rows for box in boxes),
            "pending": sum(box.pending for box in boxes),
            "in_flight": sum(box.in_flight for box in boxes),
            "dropped": sum(last - first + 1 for box in boxes
                           for runs in box.rows.lost for first, last in runs),
            "dead_letters": sum(box.rows.letters.count for box in boxes),
            "faults": Counter(box.code for box in boxes if box.code and not box.line.pulled),
        }  # fmt: skip

    def account(self, file: Path) -> None:
        """A line of JSON for each PLC: what it made (the newest sequence number), what of that the
        broker has acknowledged and what was dropped, as [first, last] of each run.
        """
        with file.open("w") as out:
            for box in self.boxes:
                rows = box.rows
                for n, (plc, tenant) in enumerate(rows.plcs):
                    line = {
                        "site": box.site,
                        "locatario_id": tenant,
                        "plc_id": plc,
                        "epoch": rows.begin_ms,
                        "made": rows.schedule.seq(n, rows.count),
                        "acknowledged": rows.acknowledged(n),
                        "dropped": rows.lost[n],
                    }
                    out.write(json.dumps(line, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Lets arrive what is in flight, and says goodbye for each box; not for ever."""
        self.quiet = True
        for box in self.boxes:
            box.finish()
        up = [box for box in self.boxes if box.status_now == "ok"]
        deadline_s = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline_s and any(box.in_flight for box in up):
            self._process.step()
            time.sleep(0.002)  # a stopping process's step does not wait
        deadline_s = time.monotonic() + CLOSE_S
        for box in up:
            if time.monotonic() < deadline_s:
                box.close()
