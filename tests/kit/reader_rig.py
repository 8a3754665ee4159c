"""One reader process and everybody it talks to but the PLC: a store that acknowledges, a metrics
process that listens.

    with ReaderRig({"id": "p1", "host": "127.0.0.1", "port": fake.port, "groups": [...]}) as rig:
        rig.wait(lambda: rig.messages, 5)
        rig.messages[-1]["values"]     # the sequenced messages, as JSON objects
        rig.beats, rig.scans, rig.events
        rig.metric("plc_edge_reconnects_total")

``groups`` and the rest are as in config.yaml: the real loader and renderer make the reader's file.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from bus import topology
from bus.frames import Ack, Event, Heartbeat, Hello, Sample, Scan, Stats
from bus.sockets import Bus, Port
from services.runtime import loader, render
from tests.kit.common import until
from tests.kit.procs import Service
from tests.kit.site import Site


class ReaderRig:
    """``plc`` and the rest as in config.yaml; heartbeats come every second unless it says
    otherwise.
    """

    def __init__(self, plc: dict[str, Any], **site: Any) -> None:
        self.plc = {"heartbeat": "1s", "timeout": "500ms", **plc}
        self.site = Site({"site": "rig", "locatario": "acme", "plcs": [self.plc], **site})
        self.site.runtime.mkdir(mode=0o700)
        self.config = render.render(loader.load(self.site.file))[f"reader-{plc['id']}"]
        self.messages: list[dict[str, Any]] = []
        self.beats: list[Heartbeat] = []
        self.scans: list[Scan] = []
        self.events: list[Event] = []
        self._stats: Stats | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._bus = Bus(self.site.runtime)
        self._keep, self._acks = self._bus.bind("keep"), self._bus.bind("acks")
        self._live, self._beats = self._bus.bind("live"), self._bus.bind("beats")
        for port in (self._live, self._beats):
            port.subscribe(b"")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.service = Service(self.config)
        try:
            self.service.wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def _serve(self) -> None:
        poller = zmq.Poller()
        for port in (self._keep, self._live, self._beats):
            poller.register(port.socket, zmq.POLLIN)
        while not self._stop.is_set():
            poller.poll(50)
            self._take(self._keep)
            self._take(self._live)
            self._take(self._beats)

    def _take(self, port: Port) -> None:
        while (frame := port.receive()) is not None:
            if isinstance(frame, Hello):
                self._acknowledge(0, 0, "hello", frame.boot)
            elif isinstance(frame, Sample):
                message = json.loads(frame.body)
                assert (message["epoch"], message["seq"]) == (frame.epoch, frame.seq)
                self.messages.append(message)
                self._acknowledge(frame.epoch, frame.seq, "commit")
            elif isinstance(frame, Heartbeat):
                if port is self._beats:
                    self.beats.append(frame)
            elif isinstance(frame, Scan):
                self.scans.append(frame)
            elif isinstance(frame, Event):
                self.events.append(frame)
            elif isinstance(frame, Stats):
                self._stats = frame

    def _acknowledge(self, epoch: int, seq: int, why: str, reader_boot: int = 0) -> None:
        ack = Ack(self.plc["id"], epoch, seq, 1, why, reader_boot)
        self._acks.send(ack, topology.topic("ack", self.plc["id"]))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a counter or gauge as last sent, over all labels but these; 0 before."""
        samples = self._stats.samples if self._stats is not None else []
        return float(sum(
            value for kind, sample, its, value in samples
            if sample == name and kind != "histogram"
            and all(its.get(k) == v for k, v in labels.items())
        ))  # fmt: skip

    def wait(self, what: Callable[[], Any], timeout_s: float = 10, why: str = "") -> None:
        """Polls until ``what()``; shows the last message and the reader's log where it does not."""
        until(what, timeout_s, lambda: f"{why}\n{self.messages[-1:]}\n{self.service.stderr()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            code = self.service.terminate()
        finally:
            self._end()
        if error is None:
            assert code == 0, self.service.stderr()

    def _end(self) -> None:
        self.service.end()
        self._stop.set()
        self._thread.join(5)
        self._bus.close()
        shutil.rmtree(self.site.folder, ignore_errors=True)
