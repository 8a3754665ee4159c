"""A rendered telegraf.conf at work, without Telegraf: its inputs' parsing, the real Starlark, and
the filters of its outputs. What would be written to the database comes out as line protocol.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.kit.starlark import Processor

_OUTPUTS = ("influxdb_v2", "http")


class Telegraf:
    """One run of it."""

    def __init__(self, conf: str) -> None:
        self.conf = tomllib.loads(conf)
        self.inputs = {i["alias"]: i for i in self.conf["inputs"]["mqtt_consumer"]}
        self.constants = self.conf["processors"]["starlark"][0]["constants"]
        self.processor = Processor(self.constants)
        (self._kind,) = [k for k in _OUTPUTS if k in self.conf["outputs"]]
        self.outputs = {o["alias"]: o for o in self.conf["outputs"][self._kind]}
        self.lines: dict[str, list[str]] = defaultdict(list)
        """Output's alias -> what it would write."""

    def parsed(self, alias: str, topic: str, text: str, now_ns: int) -> dict[str, Any]:
        """What mqtt_consumer, json_v2 and topic_parsing make of a message (as Telegraf 1.40)."""
        conf = self.inputs[alias]
        tags: dict[str, str] = {}
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        for tag in conf["json_v2"][0].get("tag", []):
            if isinstance(message, dict) and message.get(tag["path"]) is not None:
                tags[tag["path"]] = str(message[tag["path"]])
        for rule in conf["topic_parsing"]:
            pattern = rule["topic"].replace("+", "[^/]+")
            if re.fullmatch(pattern, topic):
                names = rule["tags"].split("/")
                tags |= {n: v for n, v in zip(names, topic.split("/"), strict=False) if n != "_"}
        return {"name": conf["name_override"], "tags": tags, "fields": {"corpo": text},
                "time": now_ns}  # fmt: skip

    def take(self, topic: str, message: Mapping[str, Any], now_ns: int) -> None:
        """A message of the broker."""
        alias = "edge" if topic.startswith("edge/") else "dados"
        if topic.endswith(("/heartbeat", "/gap")):
            alias = "sinais"
        self.put(self.parsed(alias, topic, json.dumps(message), now_ns))

    def put(self, metric: dict[str, Any]) -> None:
        """What an input made, on to the outputs."""
        for point in self.processor.all(metric):
            for alias, output in self.outputs.items():
                routed = point["tags"]["_rota"] in output["tagpass"]["_rota"]
                if routed and (line := _line(point, output)):
                    self.lines[alias].append(line)


def _line(point: Mapping[str, Any], output: Mapping[str, Any]) -> str:
    """As line protocol; empty where a filter leaves no field."""
    without = output.get("fieldexclude", [])
    fields = {k: v for k, v in point["fields"].items() if k not in without}
    tags = {k: v for k, v in point["tags"].items() if k not in output["tagexclude"] and v != ""}
    if not fields:
        return ""
    head = "".join(f",{_escaped(k)}={_escaped(v)}" for k, v in sorted(tags.items()))
    body = ",".join(f"{_escaped(k)}={_value(v)}" for k, v in sorted(fields.items()))
    return f"{_escaped(point['name'])}{head} {body} {point['time']}"


def _escaped(text: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", text)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(float(value))
