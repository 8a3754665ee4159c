"""Names that the command line offers; nothing heavy is imported here."""

from __future__ import annotations

from enum import StrEnum


class Database(StrEnum):
    """Where points are kept."""

    INFLUXDB2 = "influxdb2"
    VICTORIAMETRICS = "victoriametrics"


class Step(StrEnum):
    """What the condenser makes at once."""

    MINUTES = "minutes"
    """processo_1m of the last ten minutes."""
    HOURS = "hours"
    """processo_1h of the last two hours."""
    NIGHT = "night"
    """Both, of all whole days that processo_raw still keeps."""
