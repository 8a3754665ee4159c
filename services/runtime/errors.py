"""Errors by what to do about them: permanent (mend and start again) or retryable (wait)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2
# sysexits(3) EX_CONFIG; supervisord keeps a program down that ends with it (``exitcodes``).
EXIT_PERMANENT = 78


class PlcEdgeError(Exception):
    """Base of all errors that are meant for a person: the text says what, where and the fix."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it stands, what it is, how to mend it."""

    file: str
    key: str
    message: str
    line: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        key = f" {self.key}:" if self.key else ""
        hint = f"\n    fix: {self.hint}" if self.hint else ""
        return f"{where}:{key} {self.message}{hint}"


class ConfigError(PlcEdgeError):
    """Permanent: the configuration is wrong. Carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class Unavailable(PlcEdgeError):
    """Retryable: a peer is away or refuses. ``code`` is one stable word for metrics."""

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        self.code = code
        self.message = message
        self.fields = fields
        super().__init__(message)


class Refused(PlcEdgeError):
    """For ever: nothing is gained by another attempt."""


class PlcUnavailable(Unavailable):
    """A PLC cannot be reached or does not serve us."""
