"""What a PLC read by S7 has in ``config.yaml``: rack and slot, data blocks, raw bytes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from services.runtime.base_model import Duration, Model, Port, Zone
from services.runtime.judged import rule
from services.runtime.plc_model import Files, GroupBase, PlcBase
from services.s7.address import parse_address

# It goes into every message and becomes a tag.
MACHINE_NAME_MAX = 64
# What `str.format` may be given: `{n.__class__}` and `{n:999999999}` are no names.
_MACHINE_NAME = re.compile(r"(?:[^{}]|\{\{|\}\}|\{n(?::[^{}]{0,4})?\}){1,128}")


class Tsap(Model):
    """TSAPs as the S7 documentation writes them, two bytes in hex."""

    local: str = Field("10.00", pattern=r"^[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{2}$")
    remote: str = Field(pattern=r"^[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{2}$", description="e.g. `03.01`")


# The connection type is the first byte of the remote TSAP (Siemens: PG 1, OP 2, basic 3).
_CONNECTION = {"pg": 0x01, "op": 0x02, "basic": 0x03}


class Endpoint(Model):
    """How to connect to one S7 station."""

    port: Port = 102
    rack: int = Field(0, ge=0, le=7)
    slot: int = Field(1, ge=0, le=31, description="1 for S7-1200/1500, 2 for S7-300")
    tsap: Tsap | None = Field(
        None, description="instead of rack and slot (LOGO!, S7-200; docs/OPERACOES.md)"
    )
    connection: Literal["op", "pg", "basic"] = Field(
        "op", description="`pg` takes the slot that TIA Portal needs"
    )

    def tsaps(self) -> tuple[int, int]:
        """(local, remote) as 16-bit numbers."""
        if self.tsap is not None:
            local, remote = self.tsap.local, self.tsap.remote
            return int(local.replace(".", ""), 16), int(remote.replace(".", ""), 16)
        return 0x0100, _CONNECTION[self.connection] << 8 | self.rack << 5 | self.slot


class Machines(Model):
    """One record per machine, one after the other in the block."""

    count: int = Field(ge=1, le=1_000)
    stride: int = Field(ge=1, le=65_536, description="bytes from one machine to the next")
    first: int = Field(0, ge=0, le=65_535, description="byte where the first one begins")
    name: str = Field("m{n:02d}", description="`{n}` counts from 0; the CONTRACT's `machine`")

    @rule
    def _names(self) -> str | None:
        if not _MACHINE_NAME.fullmatch(self.name):
            return f"name {self.name!r} is no pattern with {{n}}"
        try:
            names = {self.name.format(n=n) for n in range(self.count)}
        except (OverflowError, ValueError) as e:
            return f"name {self.name!r} is no pattern with {{n}} ({e})"
        if max(map(len, names)) > MACHINE_NAME_MAX:
            return f"name {self.name!r} gives more than {MACHINE_NAME_MAX} characters"
        if len(names) < self.count:
            return f"name {self.name!r} gives two machines one name; use {{n:02d}}"
        return None


class RawRange(Model):
    """Bytes of the block to copy."""

    start: int = Field(ge=0, le=65_535)
    length: int = Field(ge=1, le=65_536)

    @rule
    def _in_block(self) -> str | None:
        if self.start + self.length > 65_536:
            return f"reaches byte {self.start + self.length - 1}; a block ends at 65535"
        return None


class S7Group(GroupBase):
    """Fields that are read together, at one rate."""

    db: int | None = Field(None, ge=1, le=65_535, strict=True, description="DB number")
    fields: list[Any] | None = Field(
        None,
        description="instead of a layout: fields with an `address`, or, in block `db`, with `type`"
        " and `offset` as in a layout",
    )
    machines: Machines | None = None
    raw: bool | RawRange = Field(False, description="put the bytes on the bus, for mirrors")
    consistent: bool = Field(False, description="all bytes in one telegram, or `check` refuses")
    timestamp: str | None = Field(None, description="a DTL or DT field to take the time from")
    timezone: Zone | None = Field(None, description="of `timestamp`, if not the PLC's")

    @rule
    def _layout_of_a_block(self) -> str | None:
        if self.layout is not None and self.db is None:
            return "a layout needs `db:`, the number of the data block"
        return None

    @rule
    def _raw_of_a_block(self) -> str | None:
        if self.raw is not False and self.db is None:
            return "`raw:` copies bytes of one data block: it needs `db:`"
        return None

    @rule
    def _zone_of_a_timestamp(self) -> str | None:
        if self.timezone is not None and self.timestamp is None:
            return "`timezone:` is that of `timestamp:`, and there is none"
        return None

    def block(self) -> int | None:
        """``db``."""
        return self.db

    def bases(self) -> range:
        """First byte of each machine."""
        if (m := self.machines) is None:
            return range(1)
        return range(m.first, m.first + m.count * m.stride, m.stride)

    def records(self) -> list[tuple[str | None, int]]:
        """(name, first byte) of each machine."""
        if (m := self.machines) is None:
            return [(None, 0)]
        return [(m.name.format(n=n), base) for n, base in enumerate(self.bases())]

    def rendered(self, plc: PlcBase) -> dict[str, Any]:
        """What services/protocols/s7/group.py reads."""
        assert isinstance(plc, S7Plc)
        raw = self.raw.model_dump() if not isinstance(self.raw, bool) else self.raw or None
        zone = (self.timezone or plc.timezone) if self.timestamp else None
        return {
            "raw": raw,
            "consistent": self.consistent,
            "timestamp": self.timestamp,
            "timezone": zone,
        }


class Alive(Model):
    """A field the PLC program changes, for CPUs that refuse to tell their state."""

    address: str = Field(description="e.g. `DB1.DBW0:INT`")
    timeout: Duration = Field(5.0, ge=0.1, description="unchanged for longer: `uncertain`")


class S7Plc(Endpoint, PlcBase):
    """One PLC, one reader process."""

    protocol: Literal["s7"] = Field(
        "s7", description="absolute addresses; what is meant without it"
    )
    pdu: int = Field(960, ge=240, le=960, description="asked for; the PLC grants what it can")
    parallel_jobs: Literal["auto"] | Annotated[int, Field(ge=1, le=32)] = "auto"
    alive: Alive | None = None
    timezone: Zone = Field(
        "UTC",
        description="whose time the groups' `timestamp` fields show, e.g. `America/Sao_Paulo`",
    )
    groups: list[S7Group] = Field(min_length=1)

    def rendered(self, files: Files) -> dict[str, Any]:
        """What services/protocols/s7/source.py reads."""
        local, remote = self.tsaps()
        alive = None
        if self.alive is not None:
            field = parse_address(self.alive.address, name="alive")
            alive = {"address": field.to_dict(), "timeout_s": self.alive.timeout}
        return {
            "port": self.port,
            "local_tsap": local,
            "remote_tsap": remote,
            "pdu": self.pdu,
            "parallel_jobs": self.parallel_jobs,
            "alive": alive,
        }
