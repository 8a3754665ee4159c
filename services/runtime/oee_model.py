"""The models of ``shifts:`` and ``oee:`` in ``config.yaml``."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from services.runtime.alert_base import DAYS, AlertModel, Day, TimeOfDay
from services.runtime.alert_model import AlertOperators, Counter
from services.runtime.alert_routes import Address
from services.runtime.base_model import Credentials, Duration, Host, Name, Port, Zone
from services.runtime.judged import rule

FieldName = Annotated[str, Field(min_length=1, max_length=128)]
Code = Annotated[str, Field(min_length=1, max_length=64)]


class ShiftBreak(AlertModel):
    """A planned break: no time of the machines' work, whatever they do."""

    name: str = Field("", max_length=64)
    begin: TimeOfDay = Field(alias="from")
    end: TimeOfDay = Field(alias="to")


class WeekShift(AlertModel):
    """A shift of the week."""

    name: Name
    days: list[Day] = Field(
        list(DAYS), description="on which it begins; `[]`: only where an exception names it"
    )
    begin: TimeOfDay = Field(alias="from", description="`06:00`")
    end: TimeOfDay = Field(alias="to", description="`14:00`; not after `from`: on the next day")
    breaks: list[ShiftBreak] = Field([], max_length=20)

    @rule
    def _breaks_inside(self) -> str | None:
        length = (self.end - self.begin) % 1440 or 1440
        for pause in self.breaks:
            begins = (pause.begin - self.begin) % 1440
            lasts = (pause.end - pause.begin) % 1440
            if not lasts or begins + lasts > length:
                times = (pause.begin, pause.end, self.begin, self.end)
                a, b, begin, end = (f"{m // 60:02d}:{m % 60:02d}" for m in times)
                return f"the break {a} to {b} is not within its shift, {begin} to {end}"
        return None


class ShiftException(AlertModel):
    """A day, or all from one to another, that has other shifts than its day of the week."""

    day: date | None = Field(None, alias="date")
    begin: date | None = Field(None, alias="from")
    end: date | None = Field(None, alias="to", description="the last of them")
    shifts: list[Name] = Field([], description="those that are worked; none: closed")
    name: str = Field("", max_length=64, description="why")

    @rule
    def _which_days(self) -> str | None:
        if (self.day is None) == (self.begin is None and self.end is None):
            return "give either `date:`, or `from:` and `to:`"
        if (self.begin is None) != (self.end is None):
            return "`from:` needs `to:` and the other way round"
        if (begin := self.begin) is None or (end := self.end) is None:
            return None
        return (
            None
            if 0 <= (end - begin).days <= 366
            else "`to:` is `from:` or later, by a year at most"
        )


class ShiftEmail(Credentials):
    """Who is sent each shift's report when it has ended."""

    secret_keys: ClassVar[tuple[str, ...]] = ("password",)

    host: Host
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`none` only for a server on this machine"
    )
    ca: Path | None = Field(None, description="CA certificate; default: the system's")
    timeout: Duration = Field(10.0, ge=0.1, le=60, description="of one attempt")
    sender: Address = Field(alias="from")
    to: list[Address] = Field(min_length=1, max_length=50)
    language: Literal["pt", "en"] = "pt"
    late_after: Duration = Field(
        86_400.0, ge=60, le=31 * 86_400, description="an older report is not sent any more"
    )
    model_config = AlertModel.model_config


class Shifts(AlertModel):
    """When people work (docs/oee.md)."""

    timezone: Zone = Field("America/Sao_Paulo", description="of all times below")
    week: list[WeekShift] = Field(min_length=1, max_length=50)
    exceptions: list[ShiftException] = Field([], max_length=1_000)
    email: ShiftEmail | None = Field(None, description="sends a report of each shift")


def _field(value: object) -> object:
    return {"field": value} if isinstance(value, str) else value


class OeeField(AlertModel):
    """A field of the machine; a name alone is its `field`."""

    field: FieldName
    group: Name | None = Field(None, description="if not the machine's")


class OeeRunning(OeeField, AlertOperators):
    """When it runs: while the field is true or not zero, or as compared."""


class OeeCounter(OeeField):
    """What counts pieces."""

    counter: Counter | None = Field(
        None, description="as of alert rules; default: the field's type, of others `any`"
    )


def _list(value: object) -> object:
    return [value] if isinstance(value, str | dict) else value


def _codes(value: object) -> Any:
    if isinstance(value, dict):
        return {str(code): words for code, words in value.items()}
    return [str(code) for code in value] if isinstance(value, list) else value


GivenRunning = Annotated[OeeRunning, BeforeValidator(_field)]
GivenCounter = Annotated[OeeCounter, BeforeValidator(_field)]
GivenField = Annotated[OeeField, BeforeValidator(_field)]


class OeeMachine(AlertModel):
    """A machine whose availability, performance and quality are computed."""

    name: Name
    plc: Name
    group: Name
    machine: str | None = Field(
        None, description="of the group; without it each of them, called `<name>-<machine>`"
    )
    running: GivenRunning
    good: GivenCounter | None = Field(None, description="counter of good pieces")
    bad: GivenCounter | None = Field(None, description="counter of bad pieces")
    total: GivenCounter | None = Field(
        None, description="counter of all pieces, instead of one of the two"
    )
    ideal_cycle: Duration | None = Field(
        None, gt=0, description="of one piece; without it there is no performance"
    )
    min_stop: Duration = Field(
        0.0, ge=0, le=3_600, description="what is known to have lasted less is lost speed, no stop"
    )
    reason: Annotated[list[GivenField], BeforeValidator(_list)] = Field(
        [], max_length=8, description="fields with the code of a stop; the first that has one holds"
    )
    reasons: Annotated[dict[Code, str], BeforeValidator(_codes)] = Field(
        {}, description="`{3: falta de material}`: what codes mean"
    )
    planned: Annotated[list[Code], BeforeValidator(_codes)] = Field(
        [], description="codes of planned stops: not part of the planned time"
    )

    @rule
    def _which_counters(self) -> str | None:
        given = sum(c is not None for c in (self.good, self.bad, self.total))
        if given == 3 or (given == 1 and self.total is None):
            return "give `good:` and `bad:`, or `total:` and one of them, or `total:` alone"
        return None

    @rule
    def _codes_of_something(self) -> str | None:
        if (self.reasons or self.planned) and not self.reason:
            return "`reasons:` and `planned:` are codes of `reason:`: say which field has them"
        return None

    def counters(self) -> dict[str, OeeCounter]:
        """Those that are given."""
        found = {"good": self.good, "bad": self.bad, "total": self.total}
        return {name: c for name, c in found.items() if c is not None}
