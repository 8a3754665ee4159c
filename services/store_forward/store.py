"""The store_forward process: readers' rows in, commits, acknowledgements, dispatch to outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bus import topology
from bus.frames import Ack, Heartbeat, Hello, Ready, Receipt, Sample
from bus.sockets import Port
from services.runtime.clock import now_ms
from services.runtime.process import Process
from services.store_forward.control import Control
from services.store_forward.dispatch import Dispatch
from services.store_forward.outbox import DiskFull, Outbox

COMMIT_ROWS, COMMIT_BYTES = 1_000, 256 * 1_024
# Frames taken in one turn, so that acknowledgements and receipts are not starved.
TAKE_FRAMES = 2_000
RETRY_FULL_S = 0.5


class Store:
    """Joins the outbox with the wires."""

    def __init__(self, process: Process) -> None:
        self.process = process
        config = process.config
        s = config["store"]
        self.outbox = Outbox.of(config, process.event)
        self._commit_s: float = s["commit_ms"] / 1_000
        self._commit_due_s: float | None = None
        self._committed_s = 0.0
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

    def start(self) -> None:
        """Registers everything with the process's loop."""
        p = self.process
        p.on_readable(self._keep, self._take)
        p.on_readable(self._beats_in, self._take_beats)
        p.on_readable(self._receipts, self._take_receipts)
        p.on_config(self._reconfigure)
        p.every(0.1, self._pump)
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
        self._pump()

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
        if self.outbox.pending_rows and self._commit_due_s is None:
            # Group commit: what comes within a few ms of the last one shares the next fdatasync;
            # a row that comes alone does not wait (PLC to subscriber, 20 rows/s: 7.7 ms, now 3.3).
            self._commit_due_s = self._committed_s + self._commit_s
            if self._commit_due_s <= time.monotonic():
                self._commit()
            else:
                self.process.at(self._commit_due_s, self._commit)

    def _offer(self, sample: Sample) -> None:
        if self.disk_full and time.monotonic() < self._full_until_s:
            return  # not acknowledged: the reader keeps it and sends it again
        verdict = self.outbox.offer(sample)
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
        self._commit_due_s = None
        try:
            settled = self.outbox.commit()
        except DiskFull as e:
            self._say_full(str(e))
            return
        self._committed_s = time.monotonic()
        if self.disk_full and settled:
            self.disk_full = ""
            self.process.event("info", "disk_ok", "the outbox can be written again")
        for plc, (epoch, seq) in settled.items():
            self._ack(plc, epoch, seq, "commit")
        if settled:
            self._pump()

    def _say_full(self, why: str) -> None:
        self._full_until_s = time.monotonic() + RETRY_FULL_S
        if not self.disk_full:
            self._full_since_ms = now_ms()
            text = f"the outbox cannot be written ({why}): readers keep what they read; free space"
            self.process.event("error", "disk_full", f"{text} on {self.outbox.folder}")
        self.disk_full = why
        self.outbox.drop_for_space()

    def _take_beats(self) -> None:
        while (frame := self._beats_in.receive()) is not None:
            if isinstance(frame, Heartbeat):
                self._beats[frame.plc] = frame
                for dispatch, _ in self.outputs.values():
                    dispatch.beat(frame)
        self._pump()

    # -- to outputs ----------------------------------------------------------------------

    def _take_receipts(self) -> None:
        while (frame := self._receipts.receive()) is not None:
            if isinstance(frame, Ready) and frame.output in self.outputs:
                dispatch = self.outputs[frame.output][0]
                dispatch.on_ready(frame, self.outbox, self._beats)
            elif isinstance(frame, Receipt) and frame.output in self.outputs:
                self.outputs[frame.output][0].on_receipt(frame, self.outbox)
        self.outbox.save()
        self._pump()

    def _pump(self) -> None:
        for dispatch, port in self.outputs.values():
            dispatch.pump(self.outbox, port)

    # -- once a second -------------------------------------------------------------------

    def _housekeeping(self) -> None:
        outbox, stats = self.outbox, self.process.stats
        outbox.save()
        outbox.state.sync()
        try:
            outbox.reclaim()
        except DiskFull as e:
            self._say_full(str(e))
        if outbox.pending_rows:
            self._commit()
        stats.gauge("plc_edge_store_bytes").set(outbox.size_bytes)
        stats.gauge("plc_edge_store_free_bytes").set(outbox.free_bytes)
        stats.gauge("plc_edge_store_disk_full").set(bool(self.disk_full))
        for reason, count in outbox.dropped.items():
            stats.counter("plc_edge_store_dropped_total", reason=reason).value = count
        for name, (dispatch, _) in self.outputs.items():
            stats.gauge("plc_edge_store_pending", output=name).set(outbox.pending(name))
            age_s = outbox.oldest_age_s(name)
            stats.gauge("plc_edge_store_oldest_pending_seconds", output=name).set(age_s)
            stats.gauge("plc_edge_store_dead_letters", output=name).set(
                outbox.state.dead_count(name)
            )
            stats.gauge("plc_edge_store_in_flight", output=name).set(dispatch.in_flight)
        if self.disk_full:
            why = {"code": "disk_full", "message": self.disk_full, "since": self._full_since_ms}
            self.process.state("down", **self.status(), **why)
        else:
            self.process.state("ok", **self.status())

    def status(self) -> dict[str, Any]:
        """For the panel and ``plc-edge store status``."""
        status = self.outbox.status()
        status["disk_full"] = self.disk_full
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
