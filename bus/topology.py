"""Every wire and every process class, of a box and of the centre, in one table.

Nobody else names an endpoint or a high-water mark. Two kinds of wire (docs/architecture.md):

* **live** (PUB/SUB) may drop, never blocks: dashboards, metrics, heartbeats, mirrors.
* **keep** (PUSH/PULL) may wait, never silently drops: samples on their way to the broker.

Who binds is chosen so that a new reader, output or mirror changes no other process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Pattern = Literal["pubsub", "pushpull", "reqrep"]
Receiver = Literal["pub", "sub", "push", "pull", "rep"]

# sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)).
IPC_PATH_MAX_BYTES = 107

# A live receiver drops what is older: without it a restarted subscriber got 1,000 frames up to
# 3.2 s old and the sender grew from 16 to 79 MB.
LIVE_MAX_AGE_MS = 2_000
LIVE_HWM = 10
# One reader's window of unacknowledged frames on the keep wire.
KEEP_WINDOW = 2_000


@dataclass(frozen=True, slots=True)
class Wire:
    """One kind of connection. ``per`` says whose name the endpoint carries, if any."""

    name: str
    pattern: Pattern
    binds: Receiver
    hwm: int
    per: Literal["", "plc", "consumer"] = ""
    # A burst of subscribers' worth of frames: every PLC sends to the one who binds.
    receive_hwm: int = 0


WIRES: dict[str, Wire] = {
    w.name: w
    for w in (
        # readers -> store_forward: Sample, Hello
        Wire("keep", "pushpull", binds="pull", hwm=KEEP_WINDOW),
        # store_forward -> readers: Ack
        Wire("acks", "pubsub", binds="pub", hwm=1_000),
        # readers -> store_forward: Heartbeat only (topic "beat|")
        Wire("beats", "pubsub", binds="sub", hwm=LIVE_HWM, receive_hwm=1_000),
        # store_forward -> one consumer: Deliver, Heartbeat
        Wire("dispatch", "pushpull", binds="push", hwm=64, per="consumer"),
        # consumers -> store_forward: Ready, Receipt
        Wire("receipts", "pushpull", binds="pull", hwm=1_000),
        # every process -> metrics: Scan, Heartbeat, Stats, Event, State
        Wire("live", "pubsub", binds="sub", hwm=LIVE_HWM, receive_hwm=1_000),
        # one reader -> mirrors: Raw
        Wire("raw", "pubsub", binds="pub", hwm=LIVE_HWM, per="plc"),
        # CLI -> store_forward: Request, Reply
        Wire("control", "reqrep", binds="rep", hwm=10),
        # CLI, outputs of type opcua (at the centre control_plane) -> alerts: Request, Reply
        Wire("alarms", "reqrep", binds="rep", hwm=10),
        # CLI, metrics, outputs of type opcua -> historian: Request, Reply
        Wire("history", "reqrep", binds="rep", hwm=10),
    )
}


@dataclass(frozen=True, slots=True)
class ProcessClass:
    """One kind of OS process: ``services/<folder>``, run as ``python -P -m services.<folder>``."""

    folder: str
    # The program name's prefix; the item's name follows after a hyphen: reader-prensa-01.
    prefix: str
    per: Literal["", "plc", "output", "mirror"] = ""
    # Whole classes are stopped at once in this order: readers first, outputs last.
    stop_order: int = 0
    # supervisord's start priority: receivers before senders.
    priority: int = 100
    # On a box (`plc-edge run`, supervisord.conf) or at the centre (`plc-edge central run`,
    # deploy/supervisord-central.conf).
    where: Literal["box", "centre", "both"] = "box"
    # Takes rows from the store under its item's name, or its prefix: services/runtime/consumers.py
    # says which ones a site has.
    consumes: bool = False
    # One for the box (or the centre), where the configuration asks for it.
    optional: bool = False

    @property
    def rendered(self) -> bool:
        """Its program is written by ``apply``; the others stand in supervisord.conf."""
        return bool(self.per) or self.optional


PROCESSES: dict[str, ProcessClass] = {
    p.folder: p
    for p in (
        ProcessClass("metrics", "metrics", stop_order=3, priority=10),
        ProcessClass("store_forward", "store_forward", stop_order=3, priority=20),
        ProcessClass(
            "publisher", "publisher", per="output", stop_order=4, priority=30, consumes=True
        ),
        ProcessClass(
            "alerts",
            "alerts",
            stop_order=4,
            priority=35,
            where="both",
            consumes=True,
            optional=True,
        ),
        ProcessClass(
            "historian", "historian", stop_order=4, priority=36, consumes=True, optional=True
        ),
        # Stops with the first: processes that are told to stop are no fault of a configuration.
        ProcessClass("fleet", "fleet", stop_order=1, priority=60, optional=True),
        ProcessClass("mirror", "mirror", per="mirror", stop_order=2, priority=40),
        ProcessClass("reader", "reader", per="plc", stop_order=1, priority=50),
        ProcessClass("control_plane", "control_plane", stop_order=1, priority=10, where="centre"),
        ProcessClass("meter", "meter", stop_order=1, priority=20, where="centre", optional=True),
    )
}


def process_name(folder: str, item: str = "") -> str:
    """``reader``, ``prensa-01`` -> ``reader-prensa-01``: the one spelling of a process."""
    process = PROCESSES[folder]
    if bool(process.per) != bool(item):
        raise ValueError(f"{folder} {'needs' if process.per else 'takes no'} an item name")
    return f"{process.prefix}-{item}" if item else process.prefix


def socket_path(runtime: Path, wire: str, item: str = "") -> Path:
    """The ipc path of a wire, e.g. ``/run/plc-edge/dispatch-central.sock``."""
    w = WIRES[wire]
    if bool(w.per) != bool(item):
        raise ValueError(f"wire {wire} {'needs' if w.per else 'takes no'} an item name")
    return runtime / (f"{wire}-{item}.sock" if item else f"{wire}.sock")


def endpoint(runtime: Path, wire: str, item: str = "") -> str:
    """The ZeroMQ address of a wire. Raises ValueError where the path is too long for a socket."""
    path = str(socket_path(runtime, wire, item))
    size_bytes = len(path.encode())
    if size_bytes > IPC_PATH_MAX_BYTES:
        raise ValueError(
            f"socket path {path} has {size_bytes} bytes, a Unix socket holds {IPC_PATH_MAX_BYTES}:"
            " choose a shorter paths.runtime"
        )
    return f"ipc://{path}"


def topic(kind: str, item: str = "") -> bytes:
    """A PUB/SUB topic; the terminator keeps ``p1`` from matching ``p10``."""
    return f"{kind}|{item}|".encode() if item else f"{kind}|".encode()
