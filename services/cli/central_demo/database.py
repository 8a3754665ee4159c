"""What the pipeline asks of its database, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from services.cli.central_demo.boxes import Box
from services.cli.central_demo.programs import Program
from services.cli.children import Children


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one field, by time in ms."""

    tags: Mapping[str, str]
    field: str
    values: Mapping[int, float]


class Database(Protocol):
    """One with a place of its own for each tenant."""

    name: str
    program: Program
    rendered_for: str
    """``infra render --database``."""
    condensing: str
    """Who makes the minutes."""

    @property
    def how(self) -> str:
        """In the table of parts."""

    def infra(self) -> dict[str, Any]:
        """Keys of ``infra:`` in the boxes' configurations."""

    def start(self, children: Children, rendered: Path) -> None:
        """Returns when it answers."""

    def direct(self, box: Box) -> list[dict[str, Any]]:
        """Outputs of a box straight into it."""

    def telegraf(self) -> dict[str, str]:
        """Telegraf's environment."""

    def write(self, box: Box, lines: list[str]) -> str:
        """Points in line protocol, as the tenant's writer; its refusal, if any."""

    def stored(self, box: Box, since_ms: int) -> list[Series]:
        """Raw values of a box, read as its tenant."""

    def seen(self, box: Box, reader: str, since_ms: int) -> int:
        """How many series of a box tenant ``reader`` finds wherever it may read."""

    def condense(self) -> None:
        """Has the newest minutes computed."""

    def minutes(self, box: Box, since_ms: int) -> dict[str, dict[int, float]]:
        """Condensed values of ``box.field``, without a machine's where there are several: by kind
        (mean, min, max, last) and minute.
        """
