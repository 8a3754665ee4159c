"""A configuration's PLCs as stations."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from services.protocols.s7.model import S7Plc
from services.runtime.site import Site
from services.s7.address import parse_address
from services.simulator.motion import Mover
from services.simulator.station import DB, Station

# Bytes of a block that is only written to (a mirror's target), where its size is not known.
MIRROR_TARGET_BYTES = 4_096


def stations(
    site: Site, seed: int, pdu_bytes: int, jobs: int
) -> Iterator[tuple[S7Plc, Station, Mover]]:
    """One station per PLC of the configuration that is read by S7, with memory for all its
    fields.
    """
    for plc in site.config.plcs:
        if not isinstance(plc, S7Plc):
            continue
        station = Station(plc.id, pdu_bytes, jobs)
        mover = Mover(station, random.Random(f"{seed}/{plc.id}"))
        for group in plc.groups:
            bases = [base for _, base in group.records()]
            zone = ZoneInfo(group.timezone or plc.timezone)
            for base in bases:
                for field in site.fields[plc.id, group.name]:
                    mover.add(field, base, zone)
            if group.db is not None and group.machines is not None:
                m = group.machines
                station.area(DB, group.db, m.first + m.count * m.stride)
            if group.db is not None and not isinstance(group.raw, bool):
                station.area(DB, group.db, group.raw.start + group.raw.length)
        if plc.alive is not None:
            mover.add(parse_address(plc.alive.address, name="alive"))
        yield plc, station, mover


def mirror_targets(site: Site, plc: S7Plc) -> Iterator[tuple[int, int]]:
    """(DB number, bytes) that mirrors write in this PLC."""
    for mirror in site.config.mirrors:
        target = mirror.target
        if target.host in plc.all_hosts and target.port == plc.port:
            yield target.db, target.start + MIRROR_TARGET_BYTES


def is_loopback(host: str) -> bool:
    """Whether we can listen at a PLC's own address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
