"""Holds the tenants of a box to their points a minute, between the readers' wire and the outbox.

Made only where a tenant has a quota: without one the store's path knows nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bus.frames import Sample
from services.runtime.process import Process, Timer
from services.store_forward import quota
from services.store_forward.outbox import Outbox
from services.store_forward.quota import Meter

# Said again after a tenant has kept within its quota for so long.
CALM_S = 60.0
# Between two turns: what a bucket lacks may be less than its time can tell apart.
TURN_LEAST_S = 0.001


class Limits:
    """Points a minute by tenant: those of the configuration and, where the box follows a centre,
    of ``<state>/quotas.json``. That file outlives ``fleet:``, and nobody changes it then.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._file = Path(process.config["state"]) / "quotas.json"
        self._stamp: tuple[int, int] | None = None
        self._centre = b""
        self._configured: dict[str, int] = {}
        self._follows = False

    def configure(self, config: Mapping[str, Any]) -> None:
        """Takes the configuration's."""
        self._configured = config.get("quotas") or {}
        self._follows = config.get("fleet", False)
        if not self._follows:
            self._centre = b""

    def look(self) -> bool:
        """Whether the file is another than before."""
        try:
            found = self._file.stat()
        except OSError:
            stamp = None
        else:
            stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        return True

    def read(self) -> dict[str, int]:
        """What holds now. A file that cannot be read changes nothing, and is told of."""
        try:
            centre = self._file.read_bytes() if self._follows and self._stamp else b""
            found = quota.limits(self._configured, centre)
        except (OSError, ValueError) as e:
            text = f"{self._file}: {e}; what was read before holds"
            self._process.event("warning", "quotas_file", text)
            return quota.limits(self._configured, self._centre)
        self._centre = centre
        return found


class Thinning:
    """Every tenant here that has a quota."""

    def __init__(self, process: Process, outbox: Outbox, commit: Callable[[], None]) -> None:
        """``commit`` makes durable what is offered, and acknowledges it."""
        self._process = process
        self._outbox = outbox
        self._commit = commit
        self._meters: dict[str, Meter] = {}
        self._commit_waits = False
        self._turn_timer: Timer | None = None
        """The next ``_turn``, when the first of all tenants may send."""
        self._withheld_s: dict[str, float] = {}
        """PLC -> since when something of it is withheld and not told."""
        self._over_s: dict[str, float] = {}
        """Tenant -> when something of it had to wait last."""

    def configure(self, limits: Mapping[str, int], tenants: Mapping[str, str]) -> None:
        """Takes the limits; ``tenants``: PLC -> tenant. Who has none any more waits no longer."""
        own = quota.meters(self._meters, limits, tenants.values(), time.monotonic())
        self._meters = own
        self._line_up()

    @property
    def idle(self) -> bool:
        """Nobody has a quota, and nothing is left of one."""
        return not self._meters and not self._outbox.withheld

    def reload(self) -> None:
        """After a commit that failed: what was offered did not go out."""
        for each in self._meters.values():
            each.forget()
        self._line_up()

    def _line_up(self) -> None:
        """Who waits is who has something held."""
        held = self._outbox.withheld.held
        for each in self._meters.values():
            each.waiting = {plc: None for plc in each.waiting if plc in held}
        for plc, rows in list(held.items()):
            meter = self._meters.get(next(iter(rows.values())).locatario)
            if meter is not None:
                meter.waiting.setdefault(plc)
        self._turn_later()

    # -- rows ------------------------------------------------------------------------------

    def offer(self, sample: Sample) -> str:
        """As ``Outbox.offer``."""
        outbox, plc = self._outbox, sample.plc
        meter = self._meters.get(sample.locatario)
        place = outbox.place(sample)
        if place in ("repeat", "nak"):
            return place
        if meter is None:
            outbox.release(plc)  # it had a quota until now
            if place == "jump":
                self._tell(plc)  # of the epoch that ends
            return outbox.offer(sample)
        now_s = time.monotonic()
        what = quota.head(sample.body)
        if meter.passes(plc, what, now_s) or place == "jump":
            self._release(plc, meter, meter.bucket.owe)
            if place == "jump":
                self._tell(plc)  # of the epoch that ends
            return outbox.offer(sample)
        outbox.hold(sample, what.key)
        meter.waiting.setdefault(plc)
        untold = outbox.withheld.untold.get(plc)
        if untold is not None:
            self._withheld_s.setdefault(plc, now_s)
            if len(untold.seqs) >= quota.NOTICE_RUNS:
                self._tell(plc)
            self._say_over(sample.locatario, meter, now_s)
        if not self._commit_waits:
            self._commit_waits = True
            self._process.at(now_s + quota.HOLD_COMMIT_S, self._commit_held)
        self._turn_later()
        return "ok"

    def _commit_held(self) -> None:
        self._commit_waits = False
        self._commit()

    def _release(self, plc: str, meter: Meter, pay: Callable[[int], None]) -> None:
        meter.waiting.pop(plc, None)
        for row in self._outbox.release(plc):
            what = quota.head(row.body)
            meter.went(plc, what)
            pay(what.points)

    def _turn_later(self) -> None:
        now_s = time.monotonic()
        waits = [m.bucket.wait_s(now_s) for m in self._meters.values() if m.waiting]
        if not waits:
            return
        due_s = now_s + max(TURN_LEAST_S, min(waits))
        if self._turn_timer is not None:
            if self._turn_timer.at_s <= due_s:
                return  # too early does no harm: it looks again
            self._turn_timer.cancel()
        self._turn_timer = self._process.at(due_s, self._turn)

    def _turn(self) -> None:
        """Sends what waits and fits now."""
        self._turn_timer = None
        now_s = time.monotonic()
        for meter in self._meters.values():
            while (plc := meter.next(now_s)) is not None:
                self._release(plc, meter, meter.bucket.take)
                if now_s - self._withheld_s.get(plc, now_s) >= quota.NOTICE_S:
                    self._tell(plc)
        if self._outbox.pending_rows:
            self._commit()
        self._turn_later()

    # -- once a second ---------------------------------------------------------------------

    def tell(self) -> None:
        """Queues the notices that are due."""
        now_s = time.monotonic()
        for plc, rows in list(self._outbox.withheld.held.items()):
            if next(iter(rows.values())).locatario not in self._meters:
                self._outbox.release(plc)
        for plc in list(self._outbox.withheld.untold):
            waits = plc in self._outbox.withheld.held
            most_s = quota.NOTICE_MAX_S if waits else quota.NOTICE_S
            if now_s - self._withheld_s.setdefault(plc, now_s) >= most_s:
                self._tell(plc)
        for tenant, over_s in list(self._over_s.items()):
            if now_s - over_s >= CALM_S:
                del self._over_s[tenant]
                self._process.event("info", "quota_ok", f"{tenant} is within its quota again")

    def _tell(self, plc: str) -> None:
        self._withheld_s.pop(plc, None)
        if plc in self._outbox.withheld.untold:
            self._outbox.tell_withheld(plc, quota.REASON)

    def _say_over(self, tenant: str, meter: Meter, now_s: float) -> None:
        if tenant not in self._over_s:
            limit = meter.bucket.points_per_min
            text = f"{tenant} sends more than its {limit} points a minute: it is thinned out"
            self._process.event("warning", "quota", text)
        self._over_s[tenant] = now_s

    def status(self) -> dict[str, Any]:
        """Tenant -> its limit, whether it is thinned out, and how many of its rows wait."""
        held = self._outbox.withheld.held
        return {
            tenant: {
                "points_per_min": meter.bucket.points_per_min,
                "thinned": tenant in self._over_s,
                "waiting": sum(len(held.get(plc, ())) for plc in meter.waiting),
            }
            for tenant, meter in self._meters.items()
        }
