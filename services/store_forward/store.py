"""The store_forward process: readers' rows in, commits, acknowledgements, dispatch to outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from bus import topology
from bus.frames import Ack, Heartbeat, Hello, Ready, Receipt, Sample
from bus.sockets import Port
from services.runtime.clock import now_ms
from services.runtime.process import Process
from services.store_forward.control import Control
from services.store_forward.dispatch import Dispatch
from services.store_forward.outbox import DiskFull, Outbox
from services.store_forward.thinning import Limits, Thinning

COMMIT_ROWS, COMMIT_BYTES = 1_000, 256 * 1_024
# Frames taken in one turn, so that acknowledgements and receipts are not starved.
TAKE_FRAMES = 2_000
RETRY_FULL_S = 0.5
# A row that comes alone is committed at once. Where they come faster than commits, the next one
# waits a little for each row that the last one had beside its first: at 2,300/s that took the CPU
# from here to the broker from 210 to 142 µs a message.
GATHER_S, GATHER_MAX_S = 0.001, 0.002
# Gauge -> what it is called in the status.
PER_OUTPUT = {
    "plc_edge_store_pending": "pending",
    "plc_edge_store_oldest_pending_seconds": "oldest_age_s",
    "plc_edge_store_dead_letters": "dead_letters",
    "plc_edge_store_in_flight": "in_flight",
}
# An output that did not take what it may have, or may have it only later, is looked after again.
PUMP_AGAIN_S = 0.1


class Store:
    """Joins the outbox with the wires."""

    def __init__(self, process: Process) -> None:
        self.process = process
        config = process.config
        s = config["store"]
        self.outbox = Outbox.of(config, process.event)
        self._commit_s: float = s["commit_ms"] / 1_000
        self._commit_waits = self._pump_waits = False
        self._committed_s = self._gather_s = 0.0
        self._full_until_s = 0.0
        self._full_since_ms = 0
        self.disk_full = ""
        """Why nothing can be written now; empty when it can."""
        self._replay: dict[str, Any] = s["replay"]
        bus = process.bus
        self._keep = bus.bind("keep")
        self._acks = bus.bind("acks")
        self._beats_in = bus.bind("beats")
        self._beats_in.subscribe(topology.topic("beat"))
        self._receipts = bus.bind("receipts")
        self.outputs: dict[str, tuple[Dispatch, Port]] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._plcs = {p["id"]: p["locatario"] for p in config["plcs"]}
        self._set_outputs(config["outputs"])
        self._drops: dict[str, int] = {}
        self._limits = Limits(process)
        self._thinning: Thinning | None = None
        self._take_in: Callable[[Sample], str] = self.outbox.offer
        self._limits.look()
        self._set_quotas(config)

    def start(self) -> None:
        """Registers everything with the process's loop."""
        p = self.process
        p.on_readable(self._keep, self._take)
        p.on_readable(self._beats_in, self._take_beats)
        p.on_readable(self._receipts, self._take_receipts)
        p.on_config(self._reconfigure)
        p.every(1.0, self._housekeeping, first_s=0.0)
        Control(self).serve(p)

    def _set_outputs(self, configs: list[dict[str, Any]]) -> None:
        for config in configs:
            name = config["name"]
            if name in self.outputs:
                self.outputs[name][0].configure(config)
            else:
                port = self.process.bus.bind("dispatch", name)
                self.outputs[name] = (Dispatch(name, config, self._replay), port)
        for name in self.outputs.keys() - {c["name"] for c in configs}:
            self.process.bus.release(self.outputs.pop(name)[1])

    def _set_quotas(self, config: dict[str, Any]) -> None:
        """Who has a quota now; where nobody has, rows go straight to the outbox."""
        self._limits.configure(config)
        thinning = self._thinning or Thinning(self.process, self.outbox, self._commit)
        thinning.configure(self._limits.read(), self._plcs)
        self._thinning = None if thinning.idle else thinning
        self._take_in = self.outbox.offer if thinning.idle else thinning.offer

    def _reconfigure(self, config: dict[str, Any]) -> None:
        self.outbox.set_outputs((o["name"], o["from"]) for o in config["outputs"])
        self._set_outputs(config["outputs"])
        plcs = {p["id"]: p["locatario"] for p in config["plcs"]}
        for plc in self._plcs.keys() - plcs.keys():
            gone = Heartbeat(plc, self._plcs[plc], ts_ms=now_ms(), removed=True)
            self._beats.pop(plc, None)
            for dispatch, _ in self.outputs.values():
                dispatch.beat(gone)
        self._plcs = plcs
        self._set_quotas(config)
        self._pump(self.outputs)

    # -- from readers --------------------------------------------------------------------

    def _take(self) -> None:
        for _ in range(TAKE_FRAMES):
            frame = self._keep.receive()
            if frame is None:
                break
            if isinstance(frame, Sample):
                self._offer(frame)
            elif isinstance(frame, Hello):
                # What is not committed yet is not ours to claim.
                self._commit()
                epoch, seq = self.outbox.committed(frame.plc)
                self._ack(frame.plc, epoch, seq, "hello", frame.boot)
            if self.outbox.pending_rows >= COMMIT_ROWS or self.outbox.pending_bytes >= COMMIT_BYTES:
                self._commit()
        if self.outbox.pending_rows and not self._commit_waits:
            # Group commit: what came while the last one was written shares the next fdatasync, and
            # what comes within ``store.commit`` of it, or while they come in groups.
            due_s = self._committed_s + max(self._commit_s, self._gather_s)
            if due_s <= time.monotonic():
                self._commit()
            else:
                self._commit_waits = True
                self.process.at(due_s, self._commit_waiting)

    def _commit_waiting(self) -> None:
        self._commit_waits = False
        self._take()  # with what has come meanwhile
        self.process.look_again(self._keep)

    def _offer(self, sample: Sample) -> None:
        if self.disk_full and time.monotonic() < self._full_until_s:
            return  # not acknowledged: the reader keeps it and sends it again
        verdict = self._take_in(sample)
        if verdict == "ok":
            return
        epoch, seq = self.outbox.committed(sample.plc)
        if verdict == "repeat":
            self._ack(sample.plc, epoch, seq, "repeat")
        else:
            epoch, seq = self.outbox.expected(sample.plc)
            self._ack(sample.plc, sample.epoch, seq if epoch == sample.epoch else 0, "nak")

    def _ack(self, plc: str, epoch: int, seq: int, why: str, reader_boot: int = 0) -> None:
        ack = Ack(plc, epoch, seq, self.process.boot, why, reader_boot)
        self._acks.send(ack, topology.topic("ack", plc))

    def _commit(self) -> None:
        rows = self.outbox.pending_rows
        try:
            settled = self.outbox.commit()
        except DiskFull as e:
            self._say_full(str(e))
            return
        self._committed_s = time.monotonic()
        self._gather_s = min(GATHER_MAX_S, GATHER_S * max(0, rows - 1))
        if self.disk_full and settled:
            self.disk_full = ""
            self.process.event("info", "disk_ok", "the outbox can be written again")
        if settled:
            self._pump(self.outputs)
        for plc, (epoch, seq) in settled.items():
            self._ack(plc, epoch, seq, "commit")

    def _say_full(self, why: str) -> None:
        self._full_until_s = time.monotonic() + RETRY_FULL_S
        if not self.disk_full:
            self._full_since_ms = now_ms()
            text = f"the outbox cannot be written ({why}): readers keep what they read; free space"
            self.process.event("error", "disk_full", f"{text} on {self.outbox.folder}")
        self.disk_full = why
        self.outbox.drop_for_space()
        if self._thinning is not None:
            self._thinning.reload()

    def _take_beats(self) -> None:
        while (frame := self._beats_in.receive()) is not None:
            if isinstance(frame, Heartbeat):
                self._beats[frame.plc] = frame
                for dispatch, _ in self.outputs.values():
                    dispatch.beat(frame)
        self._pump(self.outputs)

    # -- to outputs ----------------------------------------------------------------------

    def _take_receipts(self) -> None:
        heard = set()
        while (frame := self._receipts.receive()) is not None:
            if not isinstance(frame, Ready | Receipt) or frame.output not in self.outputs:
                continue
            heard.add(frame.output)
            dispatch = self.outputs[frame.output][0]
            if isinstance(frame, Ready):
                dispatch.on_ready(frame, self.outbox, self._beats)
            else:
                dispatch.on_receipt(frame, self.outbox)
        self.outbox.save()
        self._pump(heard)

    def _pump(self, names: Iterable[str]) -> None:
        must_wait = False
        for name in names:
            dispatch, port = self.outputs[name]
            dispatch.pump(self.outbox, port)
            must_wait |= dispatch.must_wait
        if must_wait and not self._pump_waits:
            self._pump_waits = True
            self.process.at(time.monotonic() + PUMP_AGAIN_S, self._pump_again)

    def _pump_again(self) -> None:
        self._pump_waits = False
        self._pump(self.outputs)

    # -- once a second -------------------------------------------------------------------

    def _housekeeping(self) -> None:
        outbox, stats = self.outbox, self.process.stats
        outbox.sync()
        if self._limits.look():
            self._set_quotas(self.process.config)
        if self._thinning is not None:
            self._thinning.tell()
            if self._thinning.idle:
                self._thinning, self._take_in = None, self.outbox.offer
        try:
            outbox.reclaim()
        except DiskFull as e:
            self._say_full(str(e))
        if outbox.pending_rows:
            self._commit()
        status = self.status()
        stats.gauge("plc_edge_store_bytes").set(status["bytes"])
        stats.gauge("plc_edge_store_free_bytes").set(status["free_bytes"])
        stats.gauge("plc_edge_store_disk_full").set(bool(self.disk_full))
        for reason, count in outbox.dropped.items():
            stats.counter("plc_edge_store_dropped_total", reason=reason).value = count
        for name, output in status["outputs"].items():
            for metric, key in PER_OUTPUT.items():
                stats.gauge(metric, output=name).set(output[key])
        if self.disk_full:
            why = {"code": "disk_full", "message": self.disk_full, "since": self._full_since_ms}
            self.process.state("down", **status, **why)
        else:
            self.process.state("ok", **status)

    def status(self) -> dict[str, Any]:
        """For the panel and ``plc-edge store status``."""
        status = self.outbox.status()
        status["disk_full"] = self.disk_full
        if self._thinning is not None:
            status["quotas"] = self._thinning.status()
        for name, (dispatch, _) in self.outputs.items():
            now = {"connected": dispatch.connected, "in_flight": dispatch.in_flight}
            status["outputs"][name].update(now)
        return status

    def close(self) -> None:
        """Commits what is here; what is still in pipes comes again."""
        self._take()
        self._commit()
        self.outbox.close()


def setup(process: Process) -> Callable[[], None]:
    """Opens the outbox, then serves readers and outputs."""
    store = Store(process)
    store.start()
    process.ready(outputs=sorted(store.outputs), segments=len(store.outbox.segments))
    return store.close
