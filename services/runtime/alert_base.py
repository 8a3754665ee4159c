"""What the models of ``alerts:`` are made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict

from services.runtime.base_model import Model

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _minutes(value: object) -> int:
    """``"06:00"`` as minutes of the day. YAML takes an unquoted 22:00 for 22 × 60 itself."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d\d?):([0-5]\d)", value)
        value = int(match[1]) * 60 + int(match[2]) if match else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1440:
        raise ValueError("a time of day is hours and minutes: 06:00")
    return value


def _offset(value: object) -> int:
    """``"-03:00"`` as minutes."""
    sign = -1 if isinstance(value, str) and value.startswith("-") else 1
    return sign * _minutes(value.lstrip("+-") if isinstance(value, str) else value)


TimeOfDay = Annotated[int, BeforeValidator(_minutes)]
UtcOffset = Annotated[int, BeforeValidator(_offset)]


class AlertModel(Model):
    """Base of what has keys that are words of Python."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)
