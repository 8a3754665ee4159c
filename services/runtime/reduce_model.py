"""The model of ``outputs[].reduce``."""

from __future__ import annotations

from pydantic import Field

from services.runtime.base_model import Duration, Model, Size
from services.runtime.judged import rule


class Reduce(Model):
    """Sums of each step instead of every message, for slow lines (docs/reducao.md)."""

    step: Duration = Field(
        ge=10, le=3_600, description="length of a step; an hour must be a whole number of them"
    )
    max_size: Size = Field(
        256 * 2**20,
        ge=2**20,
        description="what may wait on disk for the destination; then the oldest is dropped, with a"
        " `gap` message. `store.max_age` holds for it too",
    )

    @rule
    def _divides_the_hour(self) -> str | None:
        if 3_600 % self.step:
            return f"an hour is no whole number of steps of {self.step:g} s: give 10s, 60s, 5m, 1h"
        return None
