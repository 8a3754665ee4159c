"""The models of ``history:`` in ``config.yaml``."""

from __future__ import annotations

from pydantic import Field

from services.runtime.base_model import Duration, Model, Size
from services.runtime.judged import rule

_HOUR_S, _DAY_S = 3_600.0, 86_400.0


class HistoryAge(Model):
    """How long each is kept, where `max_size` does not end it before."""

    raw: Duration = Field(31 * _DAY_S, ge=2 * _HOUR_S, description="every message as delivered")
    minute: Duration = Field(366 * _DAY_S, ge=_DAY_S, description="roll-ups of a minute")
    hour: Duration = Field(3_660 * _DAY_S, ge=_DAY_S, description="roll-ups of an hour")

    @rule
    def _coarser_lasts(self) -> str | None:
        if not self.raw <= self.minute <= self.hour:
            return "what is coarser is kept at least as long: raw ≤ minute ≤ hour"
        return None


class History(Model):
    """The history on this box (docs/historico.md); `history: {}` turns it on."""

    max_size: Size = Field(
        8 * 2**30,
        ge=64 * 2**20,
        description="of all its files; over it the oldest raw hour goes, then minutes, then hours",
    )
    min_free: Size = Field(
        2**30,
        ge=0,
        description="disk space left to others; below it the oldest goes, as over `max_size`",
    )
    max_age: HistoryAge = Field(default_factory=HistoryAge)
