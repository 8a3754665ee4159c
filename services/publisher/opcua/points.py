"""What a node of ours holds: a field's value, a PLC's state, and who is told when it is another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from services.publisher.opcua import values
from services.publisher.opcua.values import Kind, Reading
from services.s7.field import Field

_V = ua.VariantType
NULL = ua.Variant(None, _V.Null)
# Of a PLC's heartbeat: name -> type.
STATUS_CELLS = {
    "status": _V.String, "scan_ms": _V.Double, "latency_ms": _V.Double, "failure": _V.String,
}  # fmt: skip


class Cell(AttributeValue):
    """A Value attribute of ours."""

    value: Reading | None

    def __init__(self) -> None:
        super().__init__(Reading(NULL, values.WAITING))

    async def push(self, reading: ua.DataValue) -> None:
        """Tells who watches it."""
        for handle, tell in list(self.datachange_callbacks.items()):
            await tell(handle, reading)

    async def set(self, reading: Reading) -> None:
        """Another value."""
        self.value = reading
        await self.push(reading)


class PlcState:
    """What is known of a PLC beside its messages. One that goes to another tenant is another."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.offline = False
        """Its last heartbeat says so (or that there is none)."""
        self.cells = {name: Cell() for name in STATUS_CELLS}


class Record:
    """The newest message of one machine of one group."""

    def __init__(self, plc: PlcState) -> None:
        self.plc = plc
        self.order = (0, 0)
        """(epoch, seq) of it."""
        self.quality = "bad"
        self.values: Mapping[str, Any] = {}
        self.bad: Mapping[str, str] = {}
        self.source_time: datetime | None = None
        self.server_time: datetime | None = None
        self.points: list[Point] = []

    def take(self, message: Mapping[str, Any], now: datetime) -> bool:
        """False where a newer one was there: a replay, or one that comes again."""
        order = (message["epoch"], message["seq"])
        if order <= self.order:
            return False
        self.order = order
        self.quality = message["quality"]
        self.values = message["values"]
        self.bad = message.get("bad", {})
        self.source_time = values.time_of(message["ts"])
        self.server_time = now
        return True

    async def push(self) -> None:
        """Tells who watches a field whose value or quality is another: a group goes out whole when
        one of its fields changes, and the others would cost as much.
        """
        offline, fallback = self.plc.offline, self.bad.get("*")
        for point in self.points:
            if not point.datachange_callbacks:
                continue
            name = point.field.name
            state = (self.values.get(name), self.bad.get(name, fallback), self.quality, offline)
            if state != point.told or point.wants_times:
                point.told = state
                await point.push(point.read())


class Point(Cell):
    """One field."""

    def __init__(self, record: Record, field: Field, kind: Kind) -> None:
        super().__init__()
        self.told: tuple[Any, ...] | None = None
        """What who watches it was told last."""
        self.wants_times = False
        """Somebody wants to be told of every time, too."""
        self.record = record
        self.field = field
        self.kind = kind
        self.value = None
        self.value_callback = lambda _node, _attribute: self.read()

    def read(self) -> Reading:
        """What it is now."""
        record = self.record
        name = self.field.name
        if record.server_time is None:
            code = values.NO_COMMUNICATION if record.plc.offline else values.WAITING
            return Reading(NULL, code, None, datetime.now(UTC))
        value = record.values.get(name)
        code = values.status(record.quality, record.bad, name, value is not None)
        variant = NULL
        if record.plc.offline:
            code = values.NO_COMMUNICATION
        elif value is not None:
            try:
                variant = self.kind.wrap(value)
            except (ValueError, TypeError, OverflowError):
                # Of a message from before the field had this type.
                code = values.TYPE_CHANGED
        return Reading(variant, code, record.source_time, record.server_time)
