"""What the configuration says of the series: how long values hold, types, units.

The historian leaves it beside its files at every start, for who reads them without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from services.historian.shapes import Stream
from services.runtime import files
from services.runtime.measured import COUNTER_BITS, HOLD_MS

FILE = "series.json"


class FieldInfo(NamedTuple):
    """One field as configured."""

    type: str = ""
    unit: str = ""
    counts: bool = False
    scaled: bool = False

    @property
    def span(self) -> int:
        """How many different values its counter has; 0 where it does not go round."""
        bits = 0 if self.scaled else COUNTER_BITS.get(self.type, 0)
        return 2**bits if bits else 0


class Known:
    """By stream; ``groups`` as services/runtime/render.py writes them."""

    def __init__(self, groups: Iterable[Mapping[str, Any]] = ()) -> None:
        self._groups = {(g["locatario"], g["plc"], g["group"]): g for g in groups}
        self._fields = {
            key: {
                f["name"]: FieldInfo(f["type"], f["unit"], f["counts"], f["scaled"])
                for f in g["fields"]
            }
            for key, g in self._groups.items()
        }

    @classmethod
    def load(cls, folder: Path) -> Known:
        """What ``save`` left; nothing where that is missing or damaged."""
        try:
            return cls(orjson.loads((folder / FILE).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, folder: Path) -> None:
        """For who reads without the historian."""
        files.write_whole(folder / FILE, orjson.dumps(list(self._groups.values())))

    def hold_ms(self, stream: Stream) -> int:
        """How long a value counts as held."""
        group = self._groups.get(stream[:3])
        return HOLD_MS if group is None else int(group["hold_ms"])

    def field(self, stream: Stream, name: str) -> FieldInfo:
        """A field, or the array that it is an element of."""
        fields = self._fields.get(stream[:3], {})
        found = fields.get(name)
        head, _, number = name.rpartition(".")
        if found is None and head and number.isdigit():
            array = self.field(stream, head)
            return array._replace(type=array.type.partition("[")[0])
        return found or FieldInfo()
