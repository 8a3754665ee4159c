"""Every frame on the bus: what it means, its fields with their units, its schema version.

On the wire a frame is one msgpack array ``[kind, version, field, field, ...]`` in the order of the
dataclass. Fields are only ever added, at the end, with a default: an old receiver ignores what it
does not know, a new one fills in what is missing. Another version is refused (``UnknownVersion``)
and counted by the receiver. The golden bytes of every frame stand in tests/unit/test_frames.py.

Times are Unix milliseconds, UTC (``ts_ms``). ``body`` is the finished JSON object of CONTRACT §4,
made once by the reader and carried unopened to the outputs: encoding it again in each process would
cost more than all the rest of the path.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, cast

import msgpack


class FrameError(ValueError):
    """Bytes that are no frame of ours: says what is wrong with them."""


class UnknownVersion(FrameError):
    """A frame of a schema version that this program does not speak."""


@dataclass(slots=True)
class Frame:
    """Base of all frames."""

    KIND: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1


# --- keep: reader -> store_forward -----------------------------------------------------------


@dataclass(slots=True)
class Sample(Frame):
    """One sequenced message of one PLC: values of a group, or a change of state of the PLC."""

    KIND: ClassVar[str] = "sample"
    plc: str = ""
    locatario: str = ""
    epoch: int = 0
    """When this sequence began, Unix ms."""
    seq: int = 0
    """1, 2, 3 … per (plc, epoch)."""
    ts_ms: int = 0
    body: bytes = b""
    oldest: bool = False
    """Set when the reader has nothing older: the store accepts the jump and records a gap."""


@dataclass(slots=True)
class Hello(Frame):
    """A reader asks where the store stands; answered with an Ack whose ``why`` is "hello"."""

    KIND: ClassVar[str] = "hello"
    plc: str = ""
    locatario: str = ""
    boot: int = 0
    """Random per reader start, echoed in the answer."""


@dataclass(slots=True)
class Ack(Frame):
    """store_forward -> reader, topic ``ack|<plc>|``: all up to (epoch, seq) is committed."""

    KIND: ClassVar[str] = "ack"
    plc: str = ""
    epoch: int = 0
    """0: the store knows nothing of this PLC."""
    seq: int = 0
    store_boot: int = 0
    """Random per store start: a new one means "send again from the first unacknowledged"."""
    why: str = "commit"
    """commit | hello | nak (out of order: send again from seq + 1) | repeat."""
    reader_boot: int = 0
    """The Hello's boot, where ``why`` is "hello"."""


# --- dispatch: store_forward <-> one output --------------------------------------------------

SAMPLE_ROW, GAP_ROW = 0, 1


@dataclass(slots=True)
class Deliver(Frame):
    """Rows for one output, oldest first, never more unreceipted than its window."""

    KIND: ClassVar[str] = "deliver"
    output: str = ""
    session: int = 0
    lane: str = "live"
    """live (strict order, or newest first beside a backfill) | backfill."""
    rows: list[tuple[int, int, str, str, int, int, int, bytes]] = field(default_factory=list)
    """(position, row kind, plc, locatario, ts_ms, epoch, seq, body)."""


@dataclass(slots=True)
class Ready(Frame):
    """output -> store_forward, at start and every second: "I am here and take ``window`` rows".

    An unknown session makes the store start again from the output's durable cursor.
    """

    KIND: ClassVar[str] = "ready"
    output: str = ""
    session: int = 0
    window: int = 0


@dataclass(slots=True)
class Receipt(Frame):
    """output -> store_forward: all rows of ``lane`` up to ``position``, included, are settled."""

    KIND: ClassVar[str] = "receipt"
    output: str = ""
    session: int = 0
    lane: str = "live"
    position: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    """(position, reason) of rows in it that the destination refuses for ever: dead letters."""


# --- live: any process -> metrics (and heartbeats to the outputs) ----------------------------


@dataclass(slots=True)
class Heartbeat(Frame):
    """A PLC's state, topic ``beat|<plc>|``. Outputs make the JSON of CONTRACT §4 from it."""

    KIND: ClassVar[str] = "beat"
    plc: str = ""
    locatario: str = ""
    ip: str = ""
    ts_ms: int = 0
    interval_s: float = 10.0
    status: str = "offline"
    """online | degraded | offline"""
    scan_ms: float = 0.0
    latency_ms: float = 0.0
    reads_ok: int = 0
    reads_failed: int = 0
    uptime_s: float = 0.0
    pending: int = 0
    failure: dict[str, Any] | None = None
    """{"code", "message", "since" (ms), "attempts"}; None when online."""
    removed: bool = False
    """The PLC has left the configuration: outputs clear its retained message."""


@dataclass(slots=True)
class Scan(Frame):
    """One scan of one group, topic ``scan|<plc>|``; ``bodies`` is empty where nothing changed."""

    KIND: ClassVar[str] = "scan"
    plc: str = ""
    locatario: str = ""
    group: str = ""
    ts_ms: int = 0
    duration_ms: float = 0.0
    latency_ms: float = 0.0
    bodies: list[bytes] = field(default_factory=list)
    quality: str = "good"


@dataclass(slots=True)
class Raw(Frame):
    """The bytes of one group as read, topic ``raw|<group>|`` on the reader's own endpoint."""

    KIND: ClassVar[str] = "raw"
    plc: str = ""
    group: str = ""
    db: int = 0
    start: int = 0
    """Offset of ``data`` in the DB, bytes."""
    data: bytes = b""
    ts_ms: int = 0
    quality: str = "good"
    """good | bad | uncertain: anything but good stops a mirror."""
    latency_ms: float = 0.0


@dataclass(slots=True)
class Stats(Frame):
    """A process's metrics, once a second, topic ``stats|<process>|``."""

    KIND: ClassVar[str] = "stats"
    process: str = ""
    pid: int = 0
    started_ms: int = 0
    ts_ms: int = 0
    samples: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    """(type: counter|gauge|histogram, name, labels, value); a histogram's value is
    {"buckets": [[upper bound, count of this bucket alone] ...], "sum": float}."""


@dataclass(slots=True)
class State(Frame):
    """What an output, mirror or store says of itself in words, topic ``state|<process>|``."""

    KIND: ClassVar[str] = "state"
    process: str = ""
    ts_ms: int = 0
    status: str = "ok"
    """ok | degraded | down | disabled"""
    fields: dict[str, Any] = field(default_factory=dict)
    """``target`` in words (``mqtts://broker:8883``); when not ok also ``code``, ``message`` and
    ``since`` (Unix ms), as in a heartbeat's failure: the panel and ``status`` show them."""


@dataclass(slots=True)
class Event(Frame):
    """Something a person wants to know, once, topic ``event|<process>|``."""

    KIND: ClassVar[str] = "event"
    process: str = ""
    ts_ms: int = 0
    level: str = "info"
    """info | warning | error"""
    code: str = ""
    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


# --- control: CLI <-> store_forward ----------------------------------------------------------


@dataclass(slots=True)
class Request(Frame):
    """A question to a process's control socket."""

    KIND: ClassVar[str] = "request"
    verb: str = ""
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reply(Frame):
    """Its answer; ``error`` says why not, in words for the person who asked."""

    KIND: ClassVar[str] = "reply"
    result: Any = None
    error: str = ""


KINDS: dict[str, type[Frame]] = {
    cls.KIND: cls
    for cls in (
        Sample,
        Hello,
        Ack,
        Deliver,
        Ready,
        Receipt,
        Heartbeat,
        Scan,
        Raw,
        Stats,
        State,
        Event,
        Request,
        Reply,
    )
}
_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in KINDS.values()}
_VALUES = {cls: attrgetter(*names) for cls, names in _NAMES.items()}
# What a field's default says of its type, checked on every frame that comes in. None: anything.
_TYPES: dict[type[Frame], tuple[type | tuple[type, ...] | None, ...]] = {}
for _cls in KINDS.values():
    _row: list[type | tuple[type, ...] | None] = []
    for _value in (getattr(_cls(), f.name) for f in fields(_cls)):
        if _value is None:
            _row.append(None)
        elif isinstance(_value, float):
            _row.append((float, int))
        else:
            _row.append(type(_value))
    _TYPES[_cls] = tuple(_row)
# The same to be compared at once: most frames hold exactly these.
_EXACT = {cls: list(types) for cls, types in _TYPES.items()}


def pack(frame: Frame) -> bytes:
    """The bytes of a frame."""
    cls = type(frame)
    return cast(bytes, msgpack.packb((cls.KIND, cls.VERSION, *_VALUES[cls](frame))))


def unpack(data: bytes) -> Frame:
    """The frame in ``data``.

    Raises UnknownVersion for another schema version, FrameError for anything else that is not
    one of our frames.
    """
    try:
        parts = msgpack.unpackb(data)
    except Exception as e:  # msgpack raises ValueError, UnpackException and their kin
        raise FrameError(f"not msgpack: {e} ({len(data)} bytes)") from None
    if not isinstance(parts, list) or len(parts) < 2:
        raise FrameError(f"not a frame: {type(parts).__name__} instead of [kind, version, …]")
    cls = KINDS.get(parts[0]) if isinstance(parts[0], str) else None
    if cls is None:
        raise FrameError(f"unknown kind of frame {parts[0]!r}")
    if parts[1] != cls.VERSION:
        raise UnknownVersion(f"{cls.KIND} frame of version {parts[1]!r}, this is {cls.VERSION}")
    values = parts[2 : 2 + len(_NAMES[cls])]
    if [*map(type, values)] != _EXACT[cls]:
        for value, want, name in zip(values, _TYPES[cls], _NAMES[cls], strict=False):
            if want is not None and not isinstance(value, want):
                raise FrameError(f"{cls.KIND}.{name} is {type(value).__name__}")
    return cls(*values)
