"""The change filter: a group is published whole when any of its fields passes its deadband."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.s7.field import Field


class ChangeFilter:
    """Remembers what was published last of one record.

    Deadbands are against the last *published* value, so a slow drift is not lost. ``abs`` is in
    published units, ``percent`` of the last published value. Everything without a deadband passes
    at any change; so do a change of quality and ``max_silence_s``. The field ``clock`` is left out:
    a PLC's time changes with every scan and would publish all of them.
    """

    def __init__(
        self, fields: Iterable[Field], max_silence_s: float, clock: str | None = None
    ) -> None:
        self._clock = clock
        self._bands = {
            f.name: (f.deadband.get("abs"), f.deadband.get("percent", 0.0) / 100)
            for f in fields
            if f.deadband is not None
        }
        self._max_silence_s = max_silence_s
        self._values: Mapping[str, Any] | None = None
        self._bad: Mapping[str, str] = {}
        self._published_s = 0.0

    def passes(
        self, values: Mapping[str, Any], bad: Mapping[str, str], changed: bool, now_s: float
    ) -> bool:
        """Whether to publish; remembers it if so. ``now_s`` is monotonic, ``changed`` says that the
        record was decoded anew.
        """
        if (
            self._values is None
            or now_s - self._published_s >= self._max_silence_s
            or bad != self._bad
            or (changed and self._differs(values))
        ):
            self._values, self._bad, self._published_s = values, bad, now_s
            return True
        return False

    def _differs(self, values: Mapping[str, Any]) -> bool:
        last = self._values or {}
        if self._clock is not None:
            values = {k: v for k, v in values.items() if k != self._clock}
            last = {k: v for k, v in last.items() if k != self._clock}
        if not self._bands:
            return values != last
        for name, value in values.items():
            before = last.get(name)
            if value == before:
                continue
            band = self._bands.get(name)
            if band is None:
                return True
            if type(value) is float and type(before) is float:  # half the time of a call
                absolute, share = band
                if abs(value - before) <= (abs(before) * share if absolute is None else absolute):
                    continue
                return True
            if not _within(value, before, *band):
                return True
        return values.keys() != last.keys()


def _within(value: Any, before: Any, absolute: float | None, share: float) -> bool:
    if isinstance(value, list):
        return (
            isinstance(before, list)
            and len(before) == len(value)
            and all(_within(v, b, absolute, share) for v, b in zip(value, before, strict=True))
        )
    if before is None or isinstance(before, list):
        return False
    if isinstance(value, str) or isinstance(before, str):  # 64-bit integers
        value, before = int(value), int(before)
    limit = absolute if absolute is not None else abs(before) * share
    return bool(abs(value - before) <= limit)
