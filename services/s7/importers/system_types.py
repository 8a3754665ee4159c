"""Names of types as Siemens tools spell them; sizes; structures of system function blocks."""

from __future__ import annotations

import math
from functools import cache

from services.s7 import types
from services.s7.importers.model import Member, Named, Place, Struct

# Numbers under another name (TIA Portal help, "Hardware data types").
_HARDWARE = {
    "UINT": (
        "HW_ANY", "HW_DEVICE", "HW_DPMASTER", "HW_DPSLAVE", "HW_IO", "HW_IOSYSTEM", "HW_SUBMODULE",
        "HW_MODULE", "HW_INTERFACE", "HW_IEPORT", "HW_HSC", "HW_PWM", "HW_PTO", "PORT", "RTM",
        "PIP", "DB_ANY", "DB_WWW", "DB_DYN",
    ),
    "WORD": ("CONN_ANY", "CONN_PRG", "CONN_OUC"),
    "DWORD": ("EVENT_ANY", "EVENT_ATT", "EVENT_HWINT", "AOM_IDENT", "AOM_AID", "CONN_R_ID"),
    "INT": (
        "OB_ANY", "OB_DELAY", "OB_TOD", "OB_CYCLIC", "OB_ATT", "OB_PCYCLE", "OB_HWINT", "OB_DIAG",
        "OB_TIMEERROR", "OB_STARTUP",
    ),
}  # fmt: skip
_ALIASES = types.ALIASES | {name: base for base, names in _HARDWARE.items() for name in names}
# They take room, but hold nothing that could be published: pointers and numbers of blocks.
_OPAQUE = {
    "POINTER": 6, "ANY": 10, "BLOCK_FB": 2, "BLOCK_FC": 2, "BLOCK_DB": 2, "BLOCK_SDB": 2,
    "TIMER": 2, "COUNTER": 2,
    # "occupies no space in the instance data block or work memory" (TIA Portal help, VARIANT).
    "VARIANT": 0,
}  # fmt: skip
# System data types whose length Siemens gives (TIA Portal help, "System data types"; 3 bytes take
# 4, a structure ends at an even byte) but whose members an export shows only in part: placed as a
# whole, not published.
_COUNTERS = {"SINT": 4, "USINT": 4, "INT": 6, "UINT": 6, "DINT": 12, "UDINT": 12}
_SYSTEM = {
    "IEC_TIMER": 16,
    "IEC_LTIMER": 32,
    **{f"{t}_TIME": 16 for t in ("TON", "TOF", "TP", "TONR")},
    **{f"{t}_LTIME": 32 for t in ("TON", "TOF", "TP", "TONR")},
    **{f"IEC_{t.removesuffix('INT')}COUNTER": size for t, size in _COUNTERS.items()},
    **{f"{c}_{t}": size for c in ("CTU", "CTD", "CTUD") for t, size in _COUNTERS.items()},
}
# Passed by reference as in-out parameters: the instance DB holds a POINTER of 6 bytes.
_BY_REFERENCE = frozenset(("STRING", "WSTRING", "DT", "DTL", *_SYSTEM))
_TIMER = "IN:BOOL PT:TIME | Q:BOOL ET:TIME | STATE:BYTE STIME:TIME ATIME:TIME"
# Instances of the standard function blocks of S7-300/400; | begins a section.
_BLOCKS = {
    "SFB0": "CU:BOOL R:BOOL PV:INT | Q:BOOL CV:INT | CUO:BOOL",
    "SFB1": "CD:BOOL LOAD:BOOL PV:INT | Q:BOOL CV:INT | CDO:BOOL",
    "SFB2": "CU:BOOL CD:BOOL R:BOOL LOAD:BOOL PV:INT | QU:BOOL QD:BOOL CV:INT | CUO:BOOL CDO:BOOL",
    **dict.fromkeys(("SFB3", "SFB4", "SFB5"), _TIMER),
}
_BLOCK_NAMES = {
    "CTU": "SFB0", "CTD": "SFB1", "CTUD": "SFB2", "TP": "SFB3", "TON": "SFB4", "TOF": "SFB5",
}  # fmt: skip


def canonical(name: str) -> str | None:
    """The layout's name of an elementary type or of one that only takes room; else None."""
    name = name.upper()
    name = _ALIASES.get(name, name)
    return name if name in _OPAQUE or name in _SYSTEM or publishable(name) else None


def by_value(name: str) -> bool:
    """Whether an in-out parameter of that type lies in the instance DB itself."""
    name = canonical(name) or ""
    return bool(name) and name not in _BY_REFERENCE


def of_1200(name: str) -> str:
    """``TON``, ``CTU`` as a S7-1200/1500 means them: IEC timers and counters, not SFBs."""
    word = name.upper()
    if word in ("TON", "TOF", "TP", "TONR"):
        return f"{word}_TIME"
    return f"{word}_INT" if word in ("CTU", "CTD", "CTUD") else name


def publishable(name: str) -> bool:
    """Whether a canonical type holds a value that a layout can name."""
    known = name in types.ELEMENTARY or name in ("STRING", "WSTRING")
    return known and name not in _OPAQUE


def size_bytes(name: str, length: int, bounds: tuple[tuple[int, int], ...] = ()) -> int:
    """Bytes of a canonical type, or of an array of it; a BOOL takes 1 (it packs)."""
    if publishable(name):
        return types.S7Type(name, length, bounds).size_bytes
    one_bytes = _OPAQUE[name] if name in _OPAQUE else _SYSTEM[name]
    return one_bytes * math.prod(high - low + 1 for low, high in bounds)


@cache
def structure(name: str) -> Struct | None:
    """The instance data of a standard function block of S7-300/400, by number or name."""
    text = _BLOCKS.get(_BLOCK_NAMES.get(name.upper(), name.upper()))
    if text is None:
        return None
    place = Place(f"({name})")
    members: list[Member] = []
    sections = [0]
    for word in text.split():
        if word == "|":
            sections.append(len(members))
        else:
            member, _, kind = word.partition(":")
            members.append(Member(member, Named(kind, place), place))
    return Struct(tuple(members), place, tuple(sections))
