"""One field in one step: what becomes of its values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal

from services.history.rollup import increase

Kind = Literal["number", "counter", "bool", "text"]

_EXACT = 2**53
_DIGITS = 9
"""Of means: more than the 7 of a REAL, and half the bytes of a double's 17."""


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of each; an array's elements are ``name.0`` …, as in line protocol."""
    for name, value in values.items():
        if isinstance(value, list):
            yield from flat({f"{name}.{i}": element for i, element in enumerate(value)})
        elif value is not None:
            yield name, value


class Field:
    """Its sums within the current step, and its last value over all steps."""

    __slots__ = (
        "area", "count", "edges", "high", "inc", "kind", "known_ms", "last", "low", "span", "sum",
    )  # fmt: skip

    def __init__(self, kind: Kind, span: int = 0) -> None:
        """``span``: how many values a counter's type has, where it goes round."""
        self.kind = kind
        self.span = span
        self.last: Any = None
        """Kept over steps: increase and edges count from it."""
        self.reset()

    def reset(self) -> None:
        """A new step."""
        self.forget()
        self.inc: float = 0
        self.edges = 0
        """How often it has become true."""

    def forget(self) -> None:
        """The values of this step count no more; that it has grown or changed does."""
        self.low: Any = None
        self.high: Any = None
        self.sum: float = 0
        self.count = 0
        self.area: float = 0
        """Value × ms."""
        self.known_ms = 0

    def hold(self, ms: int) -> None:
        """The last value was still true for so long."""
        self.known_ms += ms
        if self.kind != "text":
            self.area += self.last * ms
            if self.low is None:
                self.low = self.high = self.last

    def take(self, value: Any) -> None:
        """A value. Raises TypeError, ValueError where it is of another kind than before."""
        self.count += 1
        kind, last = self.kind, self.last
        if kind == "text":
            if not isinstance(value, str):
                raise TypeError
            self.last = value
            return
        if isinstance(value, str):
            value = int(value)  # 64 bits beyond 2^53
        if (kind == "bool") != isinstance(value, bool):
            raise TypeError
        self.sum += value
        if self.low is None:
            self.low = self.high = value
        elif value < self.low:
            self.low = value
        elif value > self.high:
            self.high = value
        if last is not None:
            if kind == "counter":
                self.inc += increase(last, value, self.span)
            elif kind == "bool" and value and not last:
                self.edges += 1
        self.last = value

    @property
    def is_told(self) -> bool:
        """Whether anything is known of it in this step."""
        return bool(self.count or self.known_ms)

    def summed(self, name: str) -> dict[str, Any]:
        """``<name>_mean`` and the others, of this step."""
        out = {f"{name}_last": _json(self.last)}
        if self.kind == "counter":
            out[f"{name}_inc"] = _json(self.inc)
        elif self.kind == "bool":
            out[f"{name}_duty"] = self._mean()
            out[f"{name}_edges"] = self.edges
        elif self.kind == "number":
            out[f"{name}_mean"] = self._mean()
            out[f"{name}_min"] = _json(self.low)
            out[f"{name}_max"] = _json(self.high)
        return out

    def _mean(self) -> float:
        """Over time; of the values themselves where none was held for any time."""
        mean = self.area / self.known_ms if self.known_ms else self.sum / self.count
        return float(f"{mean:.{_DIGITS}g}")

    def dump(self) -> list[Any]:
        """Plain data."""
        # 64-bit sums of products are more than msgpack's integers.
        self.area = float(self.area)
        self.sum = float(self.sum)
        return list(_STATE(self))

    @classmethod
    def restore(cls, data: list[Any]) -> Field:
        """What ``dump`` gave."""
        field = cls.__new__(cls)
        for slot, value in zip(Field.__slots__, data, strict=True):
            setattr(field, slot, value)
        return field


_STATE = attrgetter(*Field.__slots__)


def _json(value: Any) -> Any:
    """As raw messages have it: what a double does not hold is text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value
