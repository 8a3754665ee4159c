"""The models of ``alerts:`` in ``config.yaml``, and the plain rules that the engine takes.

They stand here and not in services/alerts, because the loader must know them and no process may be
imported by what all share; the process reads the plain form (``specs``), which services/alerts/core
turns into its rules.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from services.runtime.alert_base import DAYS, AlertModel, Day, TimeOfDay, UtcOffset
from services.runtime.alert_routes import AlertMqtt, AnyReceiver, GivenRoute
from services.runtime.base_model import Duration, Model, Name, Zone

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Pattern = Annotated[str, Field(min_length=1, max_length=128)]
Plain = bool | int | float | str
Counter = Literal[
    "any", "SINT", "USINT", "BYTE", "INT", "UINT", "WORD", "DINT", "UDINT", "DWORD",
    "LINT", "ULINT", "LWORD",
]  # fmt: skip
# Operators, in the order in which a rule may name one.
OPERATORS = ("above", "below", "outside", "equal")


class AlertWhere(AlertModel):
    """Which values a rule watches. `*` stands for any run of characters; a key that is left out
    means all. `tenant` is taken for `locatario`.
    """

    tenant: Pattern | None = Field(None, alias="locatario", description="tenant")
    site: Pattern | None = Field(None, description="edge box")
    plc: Pattern | None = None
    group: Pattern | None = Field(
        None, description="`heartbeat`: what the PLC's heartbeats say; only this name sees them"
    )
    machine: Pattern | None = None
    field: Pattern | None = None


class AlertOperators(Model):
    """What a value is compared with."""

    above: Number | None = Field(None, description="fires while greater")
    below: Number | None = Field(None, description="fires while less")
    outside: tuple[Number, Number] | None = Field(None, description="[low, high]")
    equal: Plain | list[Plain] | None = Field(None, description="a value, or a list of them")

    def operator(self) -> tuple[str, Any]:
        """(name, limit) of the one that is given; ("", None) without one."""
        for name in OPERATORS:
            if (limit := getattr(self, name)) is not None:
                return name, limit
        return "", None


class AlertLimits(AlertModel, AlertOperators):
    """A comparison with hysteresis, and the time it must hold."""

    where: AlertWhere = Field(default_factory=AlertWhere)
    returns_at: Number | tuple[Number, Number] | None = Field(
        None, description="the alarm ends on this side only; default: the limit itself"
    )
    for_s: Duration = Field(0.0, alias="for", ge=0, description="must hold so long, unbroken")


class AlertThreshold(AlertLimits):
    """A value beyond a limit."""

    type: Literal["threshold"]


class AlertRateChange(AlertLimits):
    """How fast a value moves, between now and a window ago."""

    type: Literal["rate_change"]
    per: Duration = Field(60.0, gt=0, description="the limit is per so long")
    window: Duration = Field(ge=0.1, description="must be known whole")
    counter: Literal[True] | Counter | None = Field(
        None,
        description="it only counts up: a fall is a wrap of this type, or else a restart at 0;"
        " `true`: always a restart",
    )


class AlertReference(AlertModel, AlertOperators):
    """What a percentage is of: exactly one of `value`, `mean`, `field`, `samples`, `increase`."""

    value: Number | None = Field(None, description="change against this value")
    mean: Duration | None = Field(
        None, ge=0.1, description="change against the mean of this window before"
    )
    field: Pattern | None = Field(None, description="change against a field of the same message")
    samples: Duration | None = Field(
        None, ge=0.1, description="share of this window's samples that are `above`, … or `equal`"
    )
    increase: Duration | None = Field(
        None, ge=0.1, description="share in the increase of this counter and `with` over a window"
    )
    with_field: Pattern | None = Field(None, alias="with", description="the other counter")
    counter: Literal[True] | Counter = Field(True, description="as of `rate_change`")


class AlertPercentage(AlertLimits):
    """A change in percent, or a share."""

    type: Literal["percentage"]
    of: AlertReference


class AlertStateFor(AlertModel):
    """A BOOL or code that stays; without `equal`: a value that does not change."""

    type: Literal["state_for"]
    where: AlertWhere = Field(default_factory=AlertWhere)
    equal: Plain | list[Plain] | None = Field(None, description="a value, or a list of them")
    for_s: Duration = Field(alias="for", gt=0)


class AlertAbsence(AlertModel):
    """Something that does not come."""

    type: Literal["absence"]
    where: AlertWhere = Field(default_factory=AlertWhere)
    of: Literal["value", "plc", "heartbeat", "box", "link"] | None = Field(
        None,
        description="`value`: no good value; `plc`: neither a good value nor a heartbeat that is"
        " online or degraded; `heartbeat`: none; `box`: not a word of a box; `link`: the broker"
        " says that it is gone. Default: `value` where a group, machine or field is named, else"
        " `plc`",
    )
    for_s: Duration = Field(alias="for", gt=0)

    def what(self, where: AlertWhere) -> str:
        """``of``, or what it is by default; ``where`` is where it looks."""
        named = where.group or where.machine or where.field
        return self.of or ("value" if named else "plc")


Condition = Annotated[
    AlertThreshold | AlertRateChange | AlertPercentage | AlertStateFor | AlertAbsence,
    Field(discriminator="type"),
]


class AlertDuring(AlertModel):
    """Hours in which a rule counts; `for` must pass within them."""

    days: list[Day] = Field(list(DAYS), min_length=1)
    begin: TimeOfDay = Field(alias="from", description="`06:00`")
    end: TimeOfDay = Field(alias="to", description="`22:00`; before `from`: on the next day")


class AlertRule(AlertModel):
    """What every rule has besides its condition."""

    name: Name
    cooldown: Duration = Field(0.0, ge=0, description="fires again after so long at the earliest")
    severity: Literal["informacao", "aviso", "critica"] = "aviso"
    message: str | None = Field(
        None, max_length=500, description="`{value}`, `{unit}`, `{plc}`, `{machine}`, `{field}`, …"
    )
    unit: str | None = Field(None, max_length=32, description="default: the field's")
    route: Name | None = Field(None, description="who is told: a route's or a receiver's name")
    during: AlertDuring | None = None


class AlertThresholdRule(AlertRule, AlertThreshold):
    """A value beyond a limit."""


class AlertRateChangeRule(AlertRule, AlertRateChange):
    """How fast a value moves, between now and a window ago."""


class AlertPercentageRule(AlertRule, AlertPercentage):
    """A change in percent, or a share."""


class AlertStateForRule(AlertRule, AlertStateFor):
    """A BOOL or code that stays; without `equal`: a value that does not change."""


class AlertAbsenceRule(AlertRule, AlertAbsence):
    """Something that does not come."""


class AlertSeveralRule(AlertRule):
    """Several conditions on one machine of one PLC; a group without machines counts for each."""

    type: Literal["all", "any"]
    where: AlertWhere = Field(
        default_factory=AlertWhere, description="of every condition that does not say otherwise"
    )
    of: list[Condition] = Field(min_length=2, max_length=16)
    for_s: Duration = Field(0.0, alias="for", ge=0)


AnyRule = Annotated[
    AlertThresholdRule
    | AlertRateChangeRule
    | AlertPercentageRule
    | AlertStateForRule
    | AlertAbsenceRule
    | AlertSeveralRule,
    Field(discriminator="type"),
]


class Alerts(Model):
    """Alarms on values."""

    rules: list[AnyRule] = Field([], max_length=20_000)
    receivers: list[AnyReceiver] = Field([], max_length=100)
    routes: dict[Name, GivenRoute] = Field(
        {},
        description="`{night: [phone]}`, or with more keys; a rule without a route tells all",
    )
    timezone: Zone = Field("America/Sao_Paulo", description="of the routes' `quiet` hours")
    late_after: Duration = Field(300.0, ge=1, description="older messages notify nobody")
    max_silence: Duration = Field(
        60.0, ge=0.1, description="how long a value holds where its group is not configured here"
    )
    utc_offset: UtcOffset = Field(
        "-03:00", validate_default=True, description="of the hours in `during`"
    )

    @property
    def needed(self) -> bool:
        """Whether there is work for the process; without rules, topics may have to be cleared."""
        return bool(self.rules) or any(isinstance(r, AlertMqtt) for r in self.receivers)


# --- the plain form --------------------------------------------------------------------------


def specs(alerts: Alerts, units: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Rules as services/alerts/core/rule.py reads them; ``units`` by rule, where one is known."""
    return [
        _spec(rule, alerts.utc_offset, (units or {}).get(rule.name, "")) for rule in alerts.rules
    ]


def _spec(rule: Any, utc_offset_min: int, unit: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": rule.name,
        "cooldown_ms": _ms(rule.cooldown),
        "severity": rule.severity,
        "route": rule.route or "",
        "unit": unit if rule.unit is None else rule.unit,
        "message": rule.message or "",
    }
    if isinstance(rule, AlertSeveralRule):
        spec |= {
            "mode": rule.type,
            "for_ms": _ms(rule.for_s),
            "where": _where(rule.where),
            "conditions": [_condition(c, rule.where) for c in rule.of],
        }
    else:
        spec |= {"where": _where(rule.where), "conditions": [_condition(rule, AlertWhere())]}
    if (during := rule.during) is not None:
        spec["shift"] = {
            "days": [DAYS.index(d) for d in during.days],
            "begin_min": during.begin,
            "end_min": during.end,
            "utc_offset_min": utc_offset_min,
        }
    return spec


def joined(condition: Any, outer: AlertWhere) -> AlertWhere:
    """Where a condition looks: what it does not say, its rule says."""
    return AlertWhere.model_validate(_where(outer) | _where(condition.where))


def _condition(c: Any, outer: AlertWhere) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "kind": c.type,
        "where": _where(joined(c, outer)),
        "for_ms": _ms(c.for_s),
    }
    if isinstance(c, AlertAbsence):
        return spec | {"of": c.what(joined(c, outer))}
    if isinstance(c, AlertStateFor):
        if c.equal is None:
            return spec | {"op": "unchanged"}
        return spec | {"op": "equal", "limit": _values(c.equal)}
    op, limit = c.operator()
    spec |= {"op": op, "limit": _values(limit) if op == "equal" else limit}
    if c.returns_at is not None:
        spec["returns_at"] = c.returns_at
    if isinstance(c, AlertRateChange):
        spec |= {
            "per_ms": _ms(c.per),
            "window_ms": _ms(c.window),
            "counter": _counter(c.counter),
        }
    if isinstance(c, AlertPercentage):
        spec |= _reference(c.of)
    return spec


def _reference(of: AlertReference) -> dict[str, Any]:
    if of.mean is not None:
        return {"of": "mean", "window_ms": _ms(of.mean)}
    if of.samples is not None:
        op, limit = of.operator()
        test = [op, _values(limit) if op == "equal" else limit]
        return {"of": "samples", "window_ms": _ms(of.samples), "reference": test}
    if of.increase is not None:
        counter = {"window_ms": _ms(of.increase), "counter": _counter(of.counter)}
        return {"of": "increase", "reference": of.with_field, **counter}
    if of.field is not None:
        return {"of": "field", "reference": of.field}
    return {"of": "value", "reference": of.value}


def _where(where: AlertWhere) -> dict[str, str]:
    return where.model_dump(exclude_none=True, by_alias=True)


def _values(equal: Any) -> list[Any]:
    return equal if isinstance(equal, list) else [equal]


def _counter(counter: Any) -> str:
    return "any" if counter is True else counter or ""


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
