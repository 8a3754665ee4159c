"""Writes docs/configuration.md from the models: ``python -m services.runtime.config_doc``; with the
word ``central`` docs/central-configuration.md.

tests/unit/test_config_doc.py fails when a page is not what this prints.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.protocols.opcua import model as opcua
from services.protocols.s7 import model as s7
from services.protocols.s7plus import model as s7plus
from services.runtime import (
    alert_base,
    alert_model,
    alert_routes,
    central_config,
    central_oidc,
    central_outside,
    config,
    fleet_model,
    history_model,
    opcua_model,
)

HEAD = """\
# Configuration reference

Generated from the models by `python -m services.runtime.config_doc`; do not edit.

`/etc/plc-edge/config.yaml`, else `./config.yaml`, or `--config FILE`. `plc-edge check` says every
mistake at once, with its line and the fix. Durations are `500ms`, `2s`, `5m`, `1h`, `14d`; sizes
`64KiB`, `512MiB`, `2GiB`. Paths are relative to the file that holds them.

Any key can be set by environment, two underscores per level, items of lists by name:
`PLC_EDGE__METRICS__PORT=9200`, `PLC_EDGE__OUTPUTS__CENTRAL__HOST=broker`.

Secrets: `password_file:` (one line) or `password: ${VARIABLE}`. In clear they are accepted with a
warning. They are never logged, rendered or shown.
"""
SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("(top level)", config.Config),
    ("paths", config.Paths),
    ("plcs[] (protocol: s7)", s7.S7Plc),
    ("plcs[].tsap", s7.Tsap),
    ("plcs[].alive", s7.Alive),
    ("plcs[].groups[] (protocol: s7)", s7.S7Group),
    ("plcs[].groups[].machines", s7.Machines),
    ("plcs[].groups[].raw", s7.RawRange),
    ("plcs[] (protocol: s7plus)", s7plus.S7PlusPlc),
    ("plcs[].groups[] (protocol: s7plus)", s7plus.S7PlusGroup),
    ("plcs[] (protocol: opcua)", opcua.OpcuaPlc),
    ("plcs[].security (protocol: opcua)", opcua.OpcuaSecurity),
    ("plcs[].groups[] (protocol: opcua)", opcua.OpcuaGroup),
    ("mirrors[]", config.Mirror),
    ("mirrors[].source", config.MirrorSource),
    ("mirrors[].target", config.MirrorTarget),
    ("mirrors[].maps[]", config.MirrorMap),
    ("mirrors[].commit", config.MirrorCommit),
    ("mirrors[].watchdog", config.MirrorWatchdog),
    ("outputs[] (type: mqtt)", config.MqttOutput),
    ("outputs[] (type: sparkplug)", config.SparkplugOutput),
    ("outputs[] (type: http)", config.HttpOutput),
    ("outputs[] (type: stdout)", config.StdoutOutput),
    ("outputs[] (type: opcua)", config.OpcuaOutput),
    ("outputs[].users[] (type: opcua)", opcua_model.OpcuaUser),
    ("outputs[].accounts.<tenant>", config.Credentials),
    ("outputs[].tls", config.Tls),
    ("alerts", alert_model.Alerts),
    ("alerts.receivers[] (type: webhook)", alert_routes.AlertWebhook),
    ("alerts.receivers[] (type: email)", alert_routes.AlertEmail),
    ("alerts.receivers[] (type: mqtt)", alert_routes.AlertMqtt),
    ("alerts.receivers[].rate", alert_routes.AlertRate),
    ("alerts.routes.*", alert_routes.AlertRoute),
    ("alerts.routes.*.group", alert_routes.AlertGroup),
    ("alerts.routes.*.escalate[]", alert_routes.AlertStep),
    ("alerts.routes.*.quiet[]", alert_routes.AlertQuiet),
    ("alerts.rules[]", alert_model.AlertRule),
    ("alerts.rules[].where", alert_model.AlertWhere),
    ("alerts.rules[].during", alert_model.AlertDuring),
    ("alerts.rules[] (type: threshold)", alert_model.AlertThreshold),
    ("alerts.rules[] (type: rate_change)", alert_model.AlertRateChange),
    ("alerts.rules[] (type: percentage)", alert_model.AlertPercentage),
    ("alerts.rules[].of (type: percentage)", alert_model.AlertReference),
    ("alerts.rules[] (type: state_for)", alert_model.AlertStateFor),
    ("alerts.rules[] (type: absence)", alert_model.AlertAbsence),
    ("alerts.rules[] (type: all, any)", alert_model.AlertSeveralRule),
    ("store", config.Store),
    ("store.replay", config.Replay),
    ("history", history_model.History),
    ("history.max_age", history_model.HistoryAge),
    ("metrics", config.Metrics),
    ("metrics.tls", config.HttpTls),
    ("infra", config.Infra),
    ("infra.broker", config.InfraBroker),
    ("fleet", fleet_model.Fleet),
]
CENTRAL_HEAD = """\
# Configuration of the centre

Generated from the models by `python -m services.runtime.config_doc central`; do not edit.

`/etc/plc-edge/central.yaml`, else `./central.yaml`, or `--config FILE`. `plc-edge central check`
says every mistake at once, with its line and the fix. Paths are relative to the file.
What it is for: [the manual](ESPECIFICACAO_API_PROVISIONAMENTO.md).

Any key can be set by environment, two underscores per level: `PLC_EDGE_CENTRAL__LISTEN__PORT=9443`.
"""
CENTRAL_SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("(top level)", central_config.Central),
    ("listen", central_config.Listen),
    ("listen.tls", config.HttpTls),
    ("broker", central_config.CentralBroker),
    ("broker.tls", config.Tls),
    ("influxdb", central_outside.Influxdb),
    ("grafana", central_outside.Grafana),
    ("oidc", central_oidc.Oidc),
    ("oidc.roles.VALUE", central_oidc.OidcRole),
    ("paths", central_config.CentralPaths),
]
_TYPES: dict[Any, str] = {
    Any: "mapping",  # judged elsewhere: a field (services/s7/layout.py)
    config.Duration: "duration",
    config.Size: "size",
    config.Name: "name",
    config.Port: "port",
    config.Host: "host",
    alert_base.TimeOfDay: "time of day",
    alert_base.UtcOffset: "offset",
    alert_model.Pattern: "name, `*`",
    alert_routes.Address: "e-mail address",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"), (0.001, "ms"))


def page() -> str:
    """The whole page of a box."""
    return "\n".join([HEAD, *_sections(SECTIONS)])


def central_page() -> str:
    """The whole page of the centre."""
    return "\n".join([CENTRAL_HEAD, *_sections(CENTRAL_SECTIONS)])


def _sections(sections: list[tuple[str, type[BaseModel]]]) -> Iterator[str]:
    for title, model in sections:
        yield f"## {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        hints = typing.get_type_hints(model, include_extras=True)
        for name, field in model.model_fields.items():
            kind, default = _type(hints[name]), _default(hints[name], field)
            yield f"| `{field.alias or name}` | {kind} | {default} | {_text(field)} |"
        yield ""


def _type(annotation: Any) -> str:
    for known, text in _TYPES.items():
        if annotation == known:
            return text
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        shown = (str(a).lower() if isinstance(a, bool) else str(a) for a in arguments)
        return " \\| ".join(f"`{a}`" for a in shown)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if arguments:
        kinds = dict.fromkeys(_type(a) for a in arguments if a is not type(None))
        return " \\| ".join(kinds)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {"str": "text", "bool": "true/false", "int": "integer", "float": "number"}
    name = str(annotation.__name__)
    return names.get(name, name.lower())


def _default(annotation: Any, field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "**required**"
    if value is None or isinstance(value, BaseModel) or value in ([], {}):
        return "–"
    if config.Duration in (annotation, *typing.get_args(annotation)):
        return f"`{_duration(value)}`"
    if annotation == config.Size:
        size, unit = (value // 2**30, "GiB") if value % 2**30 == 0 else (value // 2**20, "MiB")
        return f"`{size}{unit}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size and abs(seconds / size - round(seconds / size)) < 1e-9:
            return f"{round(seconds / size)}{unit}"
    return f"{seconds}s"


def _text(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(m, attribute)}"
        for m in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"))
        if getattr(m, attribute, None) is not None
    ]
    parts = [field.description or "", ", ".join(limits)]
    return "; ".join(p for p in parts if p).replace("|", "\\|")


if __name__ == "__main__":
    print(central_page() if sys.argv[1:] == ["central"] else page(), end="")
