"""A checked configuration, with its layouts resolved to fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from services.protocols.s7.model import S7Group
from services.runtime.config import Config
from services.runtime.document import Document, KeyPath
from services.runtime.errors import Problem
from services.runtime.judged import Unknown
from services.runtime.plc_model import GroupBase, PlcBase
from services.s7.field import Field


@dataclass(slots=True)
class Site:
    """One edge box. While it is being checked, its configuration may be known in part only."""

    config: Config
    fields: dict[tuple[str, str], list[Field]]
    """By (PLC id, group name); with machines, offsets are relative to the machine's first byte."""
    files: list[Path]
    """Every file it was made from: the configuration and its layouts."""
    document: Document = field(default_factory=lambda: Document(""), repr=False)

    def problem(self, path: KeyPath, message: str, hint: str = "") -> Problem:
        """A mistake at a key of the configuration."""
        return self.document.problem(path, message, hint)

    def groups(self) -> Iterator[tuple[KeyPath, PlcBase, GroupBase]]:
        """(its key, its PLC, it) of every group that is known."""
        with suppress(Unknown):
            for p, plc in enumerate(self.config.plcs):
                with suppress(Unknown):
                    for g, group in enumerate(plc.groups):
                        yield ("plcs", p, "groups", g), plc, group

    def fields_of(self, plc: PlcBase, group: GroupBase) -> list[Field]:
        """A group's fields. Raises Unknown where one of them is wrong."""
        try:
            return self.fields[plc.id, group.name]
        except KeyError:
            raise Unknown("fields") from None


def raw_range(site: Site, plc: PlcBase, group: S7Group) -> tuple[int, int]:
    """(first byte, number of bytes) that a group's Raw frames hold."""
    if not isinstance(group.raw, bool):
        return group.raw.start, group.raw.length
    fields = [f for f in site.fields_of(plc, group) if (f.area, f.db) == ("DB", group.db)]
    if not fields:
        raise Unknown("fields")
    first, last = group.bases()[0], group.bases()[-1]
    start = first + min(f.byte for f in fields)
    return start, last + max(f.byte + f.size_bytes for f in fields) - start
