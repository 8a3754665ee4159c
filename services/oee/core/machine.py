"""What a machine is: when it runs, how fast it can be, what its codes mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.oee.core.signal import Signal
from services.runtime.measured import comparison, number


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine; times in ms."""

    name: str
    op: str = ""
    """It runs while the field is ``above``, ``below``, ``outside`` or ``equal`` to ``limit``;
    without, while it is true or not zero.
    """
    limit: Any = None
    ideal_ms: float | None = None
    """Of one piece."""
    min_stop_ms: int = 0
    """What is known to have lasted less is no stop."""
    counters: Mapping[str, str] | None = None
    """``good``, ``bad``, ``total`` (two of them, or ``total`` alone) -> the counter's type."""
    words: Mapping[str, str] | None = None
    """Code -> what it means."""
    planned: frozenset[str] = frozenset()
    """Codes of planned stops."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Machine:
        """As services/runtime/oee_model.py writes it."""
        return cls(
            name=spec["name"],
            op=spec["running"]["op"],
            limit=spec["running"]["limit"],
            ideal_ms=spec["ideal_ms"],
            min_stop_ms=spec["min_stop_ms"],
            counters={name: c["counter"] for name, c in spec["counters"].items()},
            words=spec["words"],
            planned=frozenset(spec["planned"]),
        )

    def runs(self, value: Any) -> bool | None:
        """What a value of its running field says; None: nothing."""
        if self.op:
            return comparison(self.op, self.limit)(value)
        if isinstance(value, bool):
            return value
        found = number(value)
        return None if found is None else found != 0

    def code(self, value: Any) -> str:
        """A reason as the words have it; "" for none: 0, false and empty text, if they have no
        words.
        """
        text = (
            str(int(value))
            if isinstance(value, bool | float) and value == int(value)
            else str(value)
        )
        text = text.strip()
        return "" if text in ("0", "") and text not in (self.words or {}) else text


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of a machine."""

    running: Signal
    counters: Mapping[str, Signal]
    reasons: tuple[Signal, ...] = ()
    """Of several, the first that names one holds."""
