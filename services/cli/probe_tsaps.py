"""Every way to ask an S7 station for a connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SMALL = {"op": ", LOGO! 8", "basic": ", S7-200 SMART, LOGO! 8"}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask for a connection; ``config`` is what a PLC's configuration needs for it."""

    label: str
    local_tsap: int
    remote_tsap: int
    config: str
    v_memory: bool = False
    """Perhaps a LOGO! or S7-200, which may give its V memory (DB1) only."""


def ways() -> Iterator[Way]:
    """Most likely first; OP before PG, which would take the engineer's connection."""
    for connection, code in (("op", 2), ("pg", 1), ("basic", 3)):
        for rack, slot, models in (
            (0, 1, "S7-1200/1500"),
            (0, 2, "S7-300"),
            (0, 0, "S7-1200/1500, WinAC"),
            (0, 3, "S7-400"),
            (1, 3, "S7-400H"),
            (0, 4, "S7-400"),
        ):
            extra = "" if connection == "op" else f", connection: {connection}"
            # Slot 0 is TSAP 02.00 and 03.00: they have no slots, but these TSAPs.
            small = _SMALL.get(connection, "") if (rack, slot) == (0, 0) else ""
            yield Way(
                f"{connection.upper()}, rack {rack}, slot {slot} ({models}{small})",
                0x0100,
                code << 8 | rack << 5 | slot,
                f"rack: {rack}, slot: {slot}{extra}",
                v_memory=bool(small),
            )
    for label, local, remote in (
        ("LOGO!", 0x0300, 0x0200),
        ("LOGO! 0BA7", 0x0200, 0x0200),
        ("S7-200 SMART", 0x1000, 0x0300),
        ("S7-200 with CP 243-1", 0x1000, 0x1000),
        ("S7-200 with CP 243-1, second connection", 0x1000, 0x1001),
    ):
        tsaps = f'{{local: "{tsap_text(local)}", remote: "{tsap_text(remote)}"}}'
        yield Way(label, local, remote, f"tsap: {tsaps}", v_memory=True)


def tsap_text(value: int) -> str:
    """As the S7 documentation writes it: ``03.01``."""
    return f"{value >> 8:02X}.{value & 255:02X}"
