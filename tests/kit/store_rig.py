"""The real reader's keep client, the real store and a scripted output in one process, joined by
queues instead of sockets, so that thousands of power cuts take seconds.

Time is the rig's: ``step`` lets it pass. ``crash_store`` loses what sits in the store's queues, as
ZeroMQ does.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bus.frames import GAP_ROW, Deliver, Frame, Ready, Receipt, pack, unpack
from services.reader import keep as keep_module
from services.reader.keep import KeepClient
from services.runtime.process import Timer
from services.runtime.stats import Stats
from services.store_forward import dispatch as dispatch_module
from services.store_forward import store as store_module
from services.store_forward import thinning as thinning_module
from tests.kit.oracle import Oracle

STORE_CONFIG: dict[str, Any] = {
    "max_size_bytes": 2**30,
    "max_age_s": 1e9,
    "min_free_bytes": 0,
    "durability": "full",
    "commit_ms": 5,
    "replay": {"mode": "strict", "live_weight": 4, "max_rate": None},
}


class Clock:
    """Stands in for the ``time`` module of keep, store and dispatch."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


class Queue:
    """One direction of a wire."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.socket = SimpleNamespace(poll=lambda _ms: 0)
        self.up = True

    def send(self, frame: Frame, topic: bytes = b"") -> bool:
        return self.send_packed(pack(frame), topic)

    def send_packed(self, data: bytes, topic: bytes = b"") -> bool:
        if self.up:
            self.frames.append(data)
        return self.up

    def receive(self) -> Frame | None:
        return unpack(self.frames.popleft()) if self.frames else None

    def subscribe(self, topic: bytes) -> None:
        self.topic = topic


class Node:
    """As much of ``runtime.process.Process`` as a reader's keep client and the store use."""

    def __init__(self, rig: Rig, name: str, config: dict[str, Any]) -> None:
        self._rig = rig
        self.name = name
        self.config = config
        self.runtime, self.state_dir = rig.runtime, rig.state
        self.boot = rig.random.getrandbits(60) | 1
        self.stats = Stats(name, 0, 0)
        self.events: list[str] = []
        self.bus = self
        self._handlers: dict[Queue, Callable[[], None]] = {}
        self._timers: list[Timer] = []

    def bind(self, wire: str, item: str = "") -> Queue:
        port: Queue = self._rig.wire(f"{wire}-{item}")
        return port

    def connect(self, wire: str, item: str = "") -> Queue:
        port: Queue = self._rig.wire(f"acks-{self.name}" if wire == "acks" else f"{wire}-")
        return port

    def on_readable(self, port: Queue, fn: Callable[[], None]) -> None:
        self._handlers[port] = fn

    def forget(self, port: Queue) -> None:
        self._handlers.pop(port, None)

    def on_config(self, fn: Callable[[dict[str, Any]], None]) -> None:
        self.reconfigure = fn

    def every(self, interval_s: float, fn: Callable[[], None], first_s: float = 0.0) -> Timer:
        self._timers.append(Timer(self._rig.clock.now_s + first_s, fn, interval_s))
        return self._timers[-1]

    def at(self, at_s: float, fn: Callable[[], None]) -> Timer:
        self._timers.append(Timer(at_s, fn, None))
        return self._timers[-1]

    def look_again(self, _port: Queue) -> None:
        """Every handler has its turn."""

    def event(self, _level: str, code: str, text: str, **fields: Any) -> None:
        self.events.append(f"{code}: {text} {fields or ''}")

    def state(self, status: str, **fields: Any) -> None:
        self.status = (status, fields)

    def turn(self) -> None:
        for fn in list(self._handlers.values()):
            fn()
        now_s = self._rig.clock.now_s
        for timer in list(self._timers):
            if timer.cancelled or (timer.at_s <= now_s and timer.interval_s is None):
                self._timers.remove(timer)
            if timer.at_s <= now_s and not timer.cancelled:
                if timer.interval_s is not None:
                    timer.at_s = now_s + timer.interval_s
                timer.fn()


class Acks:
    """The store's ack wire: each reader gets a copy."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def send(self, frame: Any, topic: bytes = b"") -> bool:
        port: Queue = self._rig.wire(f"acks-{frame.plc}")
        return port.send(frame)


class Output:
    """Takes rows, settles them when it feels like it."""

    def __init__(self, rig: Rig, name: str, window: int = 50) -> None:
        self._rig, self.name, self.window = rig, name, window
        self.oracle = rig.oracles[name]
        self.session = rig.random.getrandbits(60) | 1
        self.on = True
        self.cut_off = False
        """It lives, and its destination is away."""
        self._settled = {"live": 0, "backfill": 0}
        self._ready_s = 0.0

    def turn(self, lazy: float) -> None:
        if not self.on:
            return
        wire, receipts = self._rig.wire(f"dispatch-{self.name}"), self._rig.wire("receipts-")
        if self._rig.clock.now_s >= self._ready_s:
            self._ready_s = self._rig.clock.now_s + 1.0
            receipts.send(Ready(self.name, self.session, self.window))
        if self.cut_off:
            return
        while (frame := wire.receive()) is not None:
            if not isinstance(frame, Deliver) or frame.session != self.session:
                continue
            for pos, kind, *_rest, body in frame.rows:
                if pos > self._settled[frame.lane]:
                    self.oracle.deliver(body, kind == GAP_ROW)
                    self._settled[frame.lane] = pos
            if self._rig.random.random() >= lazy:
                last = self._settled[frame.lane]
                receipts.send(Receipt(self.name, self.session, frame.lane, last))
        if lazy == 0:
            for lane, last in self._settled.items():
                if last:
                    receipts.send(Receipt(self.name, self.session, lane, last))


class Rig:
    """Folders, wires, readers ``p1``…, the store and its outputs."""

    def __init__(self, seed: int, outputs: tuple[str, ...] = ("a",), plcs: int = 2, **store: Any):
        self.random = random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/dev/shm"))
        self.runtime, self.state = self.folder / "r", self.folder / "s"
        self.runtime.mkdir()
        self.state.mkdir()
        self.clock = Clock()
        for module in (keep_module, store_module, dispatch_module, thinning_module):
            vars(module)["time"] = self.clock
        self._wires: dict[str, Any] = {}
        self.oracles = {name: Oracle() for name in outputs}
        first = self.oracles[outputs[0]]
        for oracle in self.oracles.values():
            oracle.acquired = first.acquired
        self.source = first
        self.config: dict[str, Any] = {
            "site": "planta-sp",
            "state": str(self.state),
            "store": {**STORE_CONFIG, **store},
            "outputs": [
                {"name": n, "locatarios": None, "from": "oldest", "strict": False} for n in outputs
            ],
            "plcs": [],
        }
        self.plcs = [f"p{i + 1}" for i in range(plcs)]
        self.acked: set[int] = set()
        self.readers: dict[str, tuple[Node, KeepClient]] = {}
        self.store: store_module.Store | None = None
        self.outputs: dict[str, Output] = {}
        self.restarts = 0

    def wire(self, name: str) -> Any:
        if name == "acks-":
            return self._wires.setdefault(name, Acks(self))
        return self._wires.setdefault(name, Queue())

    def start(self) -> None:
        """Starts whatever does not run."""
        if self.store is None:
            self._node = Node(self, "store_forward", self.config)
            self.store = store_module.Store(self._node)  # type: ignore[arg-type]
            self.store.start()
        for plc in self.plcs:
            if plc not in self.readers:
                node = Node(self, plc, {})
                client = KeepClient(node, plc, "acme")  # type: ignore[arg-type]
                client.open()
                self.readers[plc] = (node, client)
        for name in self.oracles:
            if name not in self.outputs:
                self.outputs[name] = Output(self, name)

    def publish(self, plc: str, pad: int = 40, more: str = "") -> None:
        """The reader of ``plc`` acquires one message."""
        message = self.source.message(plc, pad, more)
        self.readers[plc][1].publish(int(self.clock.now_s * 1_000), message)

    def step(self, seconds: float = 0.01, lazy: float = 0.0) -> None:
        """Lets time pass and everybody have a turn."""
        self.clock.now_s += seconds
        for node, _ in list(self.readers.values()):
            node.turn()
        if self.store is not None:
            self._node.turn()
        for output in self.outputs.values():
            output.turn(lazy)

    def note_acked(self) -> None:
        """Remembers what readers may forget: it must never be lost from here on."""
        ends = {plc: (c.epoch, c._ring.first_seq) for plc, (_, c) in self.readers.items()}
        for n, (plc, epoch, seq) in self.source.acquired.items():
            if (
                n not in self.acked
                and (epoch, seq) < ends.get(plc, (0, 0))
                and (epoch == ends[plc][0])
            ):
                self.acked.add(n)

    def drain(self, seconds: float = 60.0) -> None:
        """Until everything acquired is delivered or told of; fails after that much rig time."""
        end_s = self.clock.now_s + seconds
        while True:
            self.step(0.05)
            store = self.store
            assert store is not None
            waiting = sum(c.pending for _, c in self.readers.values())
            waiting += sum(store.outbox.pending(n) for n in self.oracles)
            if not waiting and not store.outbox.pending_rows:
                self.step(1.1)
                if not any(store.outbox.pending(n) for n in self.oracles):
                    return
            assert self.clock.now_s < end_s, f"stuck with {waiting} waiting: {self._node.events}"

    def lose_wires(self, *prefixes: str) -> None:
        """What sits in pipes is gone."""
        for name, wire in self._wires.items():
            if isinstance(wire, Queue) and name.startswith(prefixes):
                wire.frames.clear()

    def drop_store(self) -> None:
        """The store is gone, without a word; its files stay as they are."""
        self.store = None
        self.restarts += 1
        self.lose_wires("keep", "acks", "dispatch", "receipts")

    def drop_readers(self) -> None:
        """The readers are gone; their rings stay as they are."""
        self.readers = {}

    def close(self) -> None:
        for module in (keep_module, store_module, dispatch_module, thinning_module):
            vars(module)["time"] = time
        shutil.rmtree(self.folder, ignore_errors=True)
