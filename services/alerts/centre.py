"""The same engine at the centre: one process, and in it an engine of its own for each tenant that
has rules, with a memory file, a session and an account at the broker of its own. What one tenant
has, another's engine never gets to see: neither by this code, nor by the broker's permissions.

Who has rules stands in ``<state>/alerts/tenants/<tenant>.json``, written by the control plane and
looked at once a second: a new file begins an engine, a changed one begins it anew from its memory,
a file that is gone ends it. An engine that fails ends alone, and begins anew after a pause.
"""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from glob import escape
from math import inf
from pathlib import Path
from typing import Any

import orjson

from bus.frames import Heartbeat, Reply, Request
from services.alerts.alarms import Alarms
from services.alerts.control import Control
from services.alerts.core.engine import BadMessage
from services.alerts.outward import only_outward
from services.consumer.durable import Durable
from services.consumer.mqtt import MqttIntake
from services.consumer.row import Row
from services.consumer.source import Source, Taker
from services.runtime.clock import now_ms
from services.runtime.part import Part
from services.runtime.process import Process

LOOK_S = 1.0
# After an engine has failed.
AGAIN_S = 30.0
FOLDER = Path("alerts")
TENANTS = FOLDER / "tenants"


class TenantAlarms(Alarms):
    """One tenant's alarms, on all its boxes."""

    def __init__(self, part: Process) -> None:
        super().__init__(part)
        self.target = f"alert rules of {part.item}"
        self._sites = {plc: site for _, site, plc, _ in part.config["roster"]}

    def _site_of(self, beat: Heartbeat) -> str:
        return str(self._sites.get(beat.plc, ""))

    def _say_what_lives(self, now: int) -> None:
        """Nothing: of a box only its own word and the broker's tell."""

    def status(self, tenant: str, site: str, message: dict[str, Any]) -> None:
        """What the broker says of a box's connection; kept by the next commit."""
        if not isinstance(message, dict):
            raise BadMessage("is no JSON object")
        self._hear(f"edge/{tenant}/{site}/status", message, now_ms())

    def close(self) -> None:
        """Nobody is told any more, and nothing is written."""
        try:
            super().close()
        finally:
            self._memory.close()


class _Untold:
    """No progress is kept beside the engine's state: that tells by (epoch, seq) what it has had."""

    def __init__(self, _packed: bytes) -> None:
        pass

    def take(self, rows: Iterable[Row]) -> list[Row]:
        return list(rows)

    def pack(self) -> bytes:
        return b""


class Running:
    """One tenant's engine."""

    def __init__(
        self,
        process: Process,
        tenant: str,
        config: dict[str, Any],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """``on_failure``: it does nothing any more, and is to be given up."""
        config = {**config, "mqtt": {**process.config["broker"], **config["mqtt"]}}
        self._part = Part(process, tenant, config, on_failure)
        self._alarms: TenantAlarms | None = None
        self._intake: MqttIntake | None = None
        try:
            self._alarms = TenantAlarms(self._part)
            self.control = Control(self._alarms)
            self._durable = Durable(self._part, self._alarms, self._source, _Untold)
            self._durable.open()
            self._alarms.open()
        except Exception:
            self.give_up()
            raise

    def _source(self, part: Process, taker: Taker) -> Source:
        tenant = part.item
        own = f"plc/{tenant}/+"
        topics = (own, f"{own}/gap", f"{own}/heartbeat", f"edge/{tenant}/+/status")
        status = partial(self._status, tenant)
        self._intake = MqttIntake(part, taker, topics, on_status=status)
        return self._intake

    def _status(self, own: str, tenant: str, site: str, message: dict[str, Any]) -> None:
        # The broker lets no other through; here neither.
        if tenant == own and self._alarms is not None:
            self._alarms.status(tenant, site, message)

    def close(self, *, for_good: bool = False) -> None:
        """Commits what was taken. ``for_good``: the broker keeps nothing for it any more."""
        if for_good and self._intake is not None:
            self._intake.forget_session()
        try:
            self._durable.close()
        finally:
            self._end()

    def give_up(self) -> None:
        """Commits nothing: what was taken comes again."""
        try:
            if self._intake is not None:
                self._intake.close()
        finally:
            self._end()

    def _end(self) -> None:
        self._part.end()
        if self._alarms is not None:
            self._alarms.close()


class Tenants:
    """Who has an engine, as the files want it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._folder = process.state_dir / TENANTS
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._seen: dict[str, tuple[int, int]] = {}
        """Tenant → (mtime, inode) of the file as it was taken up."""
        self._running: dict[str, Running] = {}
        self._again_s: dict[str, float] = {}
        """Tenant whose engine has failed → when it is tried again, monotonic."""
        self._port = process.bus.bind("alarms")
        process.on_readable(self._port, self._serve)
        process.every(LOOK_S, self.look)
        self.look()

    def look(self) -> None:
        """Takes up what has changed."""
        with os.scandir(self._folder) as entries:
            files = {
                e.name.removesuffix(".json"): (e.stat().st_mtime_ns, e.inode())
                for e in entries
                if e.name.endswith(".json")
            }
        for tenant in self._seen.keys() - files.keys():
            del self._seen[tenant]
            self._again_s.pop(tenant, None)
            self._end(tenant, for_good=True)
        now_s = time.monotonic()
        for tenant, version in sorted(files.items()):
            if self._seen.get(tenant) != version or self._again_s.get(tenant, inf) <= now_s:
                self._seen[tenant] = version
                self._again_s.pop(tenant, None)
                self._begin(tenant)

    def _begin(self, tenant: str) -> None:
        """One tenant's file that is no use must not be the end of all the others."""
        file = self._folder / f"{tenant}.json"
        try:
            config = orjson.loads(file.read_bytes())
            self._end(tenant, for_good="gone" in config)
            if "gone" in config:
                self._remove(tenant, file)
                return
            failed = partial(self._failed, tenant)
            self._running[tenant] = Running(self._process, tenant, config, failed)
        except Exception as e:
            self._try_later(tenant, e)
            return
        rules = len(config["rules"])
        self._process.event("info", "tenant_begun", f"{tenant}: {rules} rules", item=tenant)

    def _failed(self, tenant: str, error: Exception) -> None:
        """One tenant's engine that fails must not be the end of all the others."""
        running = self._running.pop(tenant, None)
        if running is not None:
            self._close(tenant, running.give_up)
            del running
            gc.collect()
        self._try_later(tenant, error)

    def _try_later(self, tenant: str, error: Exception) -> None:
        self._again_s[tenant] = time.monotonic() + AGAIN_S
        text = f"the alert rules of {tenant} cannot be evaluated: {error!r}"
        self._process.event("error", "tenant_failed", text, item=tenant, again_s=AGAIN_S)
        trace = "".join(traceback.format_exception(error))
        self._process.log.error("where it failed", item=tenant, traceback=trace)

    def _close(self, tenant: str, close: Callable[[], None]) -> None:
        try:
            close()
        except Exception as e:
            text = f"the alert engine of {tenant} did not end in good order: {e!r}"
            self._process.event("error", "tenant_failed", text, item=tenant)

    def _end(self, tenant: str, *, for_good: bool) -> None:
        running = self._running.pop(tenant, None)
        if running is None:
            return
        self._close(tenant, partial(running.close, for_good=for_good))
        del running
        gc.collect()  # it is all in circles, and connections to receivers are open in it
        if for_good:
            text = f"{tenant} has no rules to evaluate any more"
            self._process.event("info", "tenant_ended", text, item=tenant)

    def _remove(self, tenant: str, file: Path) -> None:
        """The tenant is purged: so is what was remembered of it. No name of a tenant has a dot."""
        for found in (self._process.state_dir / FOLDER).glob(f"{escape(tenant)}.*"):
            found.unlink()
        file.unlink()
        del self._seen[tenant]
        self._process.event("info", "tenant_purged", f"{tenant}: removed", item=tenant)

    # -- the control socket ---------------------------------------------------------------------

    def _serve(self) -> None:
        while (frame := self._port.receive()) is not None:
            self._port.send(self._answer(frame))

    def _answer(self, frame: Any) -> Reply:
        if not isinstance(frame, Request):
            return Reply(None, "that is no request")
        tenant = str(frame.args.get("tenant", ""))
        running = self._running.get(tenant)
        if running is None:
            return Reply(None, f"no rules of {tenant!r} are evaluated here (yet)")
        try:
            return running.control.answer(frame)
        except Exception as e:
            self._failed(tenant, e)
            return Reply(None, f"the alert engine of {tenant!r} has failed, and begins anew")

    def close(self) -> None:
        """Ends them all; each goes on from there with the next start."""
        for tenant, running in self._running.items():
            self._close(tenant, running.close)


def setup(process: Process) -> Callable[[], None]:
    """Begins with the tenants that there are."""
    if process.config["alert_receivers"] == "public":
        only_outward()
    tenants = Tenants(process)
    process.ready()
    return tenants.close
