"""The models of who is told of alarms: ``alerts.receivers`` and ``alerts.routes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from services.runtime.alert_base import DAYS, AlertModel, Day, TimeOfDay
from services.runtime.base_model import Credentials, Duration, Host, Model, Name, Port
from services.runtime.judged import rule

Address = Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$", max_length=254)]


class AlertReceiver(Credentials):
    """Somebody who is told, or a place where it is shown."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)
    secret_keys: ClassVar[tuple[str, ...]] = ("password",)

    name: Name


class AlertRate(Model):
    """What a receiver is sent at most; more is summed up in one message."""

    messages: int = Field(ge=1, le=1_000)
    per: Duration = Field(60.0, ge=1, le=86_400)


class AlertSender(AlertReceiver):
    """Somebody who gets messages."""

    timeout: Duration = Field(10.0, ge=0.1, le=60, description="of one attempt")
    ca: Path | None = Field(None, description="CA certificate; default: the system's")
    rate: AlertRate | None = None


class AlertWebhook(AlertSender):
    """A POST of JSON; `Idempotency-Key` is the same at every attempt."""

    secret_keys: ClassVar[tuple[str, ...]] = ("password", "secret")

    type: Literal["webhook"]
    url: str = Field(pattern=r"^https?://[^\s]+$")
    format: Literal["plc-edge", "alertmanager"] = Field(
        "plc-edge", description="`alertmanager`: what Alertmanager sends to its webhook receivers"
    )
    secret_file: Path | None = Field(None, description="key of the signature (HMAC-SHA256)")
    secret: str | None = Field(None, description="`${VARIABLE}`")

    @rule
    def _one_secret(self) -> str | None:
        if self.secret is not None and self.secret_file is not None:
            return "give `secret_file:` or `secret:`, not both"
        return None


class AlertEmail(AlertSender):
    """A message by SMTP."""

    type: Literal["email"]
    host: Host
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`none` only for a server on this machine"
    )
    sender: Address = Field(alias="from")
    to: list[Address] = Field(min_length=1, max_length=50)


class AlertMqtt(AlertReceiver):
    """Each rule's state, retained: `alertas/<locatario>/<rule>`."""

    type: Literal["mqtt"]
    output: Name = Field(description="an output of `type: mqtt`: its broker, with an account here")
    accounts: dict[Name, Credentials] = Field(
        {}, description="tenant → its own account, if not this one"
    )
    per_site: bool = Field(
        False,
        description="`…/<rule>/<site>`, where several boxes of a tenant have a rule of one name",
    )


AnyReceiver = Annotated[AlertWebhook | AlertEmail | AlertMqtt, Field(discriminator="type")]


class AlertGroup(Model):
    """What comes close together goes in one message."""

    wait: Duration = Field(10.0, ge=1, le=3_600, description="after the first")
    max: int = Field(50, ge=1, le=1_000, description="listed whole; all are counted by rule")


class AlertStep(Model):
    """Who else is told of what nobody has acknowledged."""

    after: Duration = Field(ge=1, le=604_800, description="since the route was told")
    to: list[Name] = Field(min_length=1, description="names of receivers")


class AlertQuiet(AlertModel):
    """Hours in which alarms wait; what still rings at their end is told in one message."""

    days: list[Day] = Field(list(DAYS), min_length=1)
    begin: TimeOfDay = Field(alias="from", description="`22:00`, in `alerts.timezone`")
    end: TimeOfDay = Field(alias="to", description="`06:00`; not after `from`: on the next day")
    severities: list[Literal["informacao", "aviso"]] = Field(
        ["informacao", "aviso"], min_length=1, description="`critica` is always told at once"
    )


class AlertRoute(Model):
    """Who is told, and how. A list alone is its `receivers`."""

    receivers: list[Name] = Field(min_length=1)
    group: AlertGroup | None = None
    escalate: list[AlertStep] = Field([], max_length=10)
    quiet: list[AlertQuiet] = Field([], max_length=20)


def _route(value: object) -> object:
    return {"receivers": value} if isinstance(value, list) else value


GivenRoute = Annotated[AlertRoute, BeforeValidator(_route)]
