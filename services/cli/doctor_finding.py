"""What ``doctor`` says of one thing it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do."""

    level: Literal["ok", "warning", "error"]
    subject: str
    """``plc prensa-01``, ``output central``, ``disk`` …"""
    code: str
    """One stable word for programs."""
    text: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


class Failed(Exception):
    """A check that fails ends the checks that build on it; carries the finding."""

    def __init__(self, subject: str, code: str, text: str, fix: str) -> None:
        self.finding = Finding("error", subject, code, text, fix)
        super().__init__(text)
