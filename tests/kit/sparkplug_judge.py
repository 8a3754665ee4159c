"""What a Sparkplug host is entitled to, checked on all that it heard. Each check names the
specification's assertion (``tck-id-…``); docs/sparkplug.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.kit.sparkplug import NODE, Heard, decode

BASIC_TYPES = {
    "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double",
    "Boolean", "String", "DateTime", "Text",
}  # fmt: skip


@dataclass
class Reading:
    """One metric of one DDATA."""

    name: str
    value: Any
    ts_ms: int
    historical: bool
    quality: int | None
    reason: str


@dataclass
class Judge:
    """``hear`` all that a host heard; what is left is what it then knows."""

    qos: int = 0
    delivered: list[tuple[str, int, int]] = field(default_factory=list)
    """(plc, epoch, seq) of each DDATA of a row, repeats included."""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    readings: dict[tuple[str, int, int], list[Reading]] = field(default_factory=dict)
    current: dict[str, Any] = field(default_factory=dict)
    """"<plc>/<metric>" -> the value that a host shows."""
    quality: dict[str, int] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    births: list[dict[str, Any]] = field(default_factory=list)
    """DBIRTHs, decoded."""

    def hear(self, heard: list[Heard]) -> None:
        """Fails where an assertion does not hold."""
        heard = list(heard)  # it may still grow
        self._names: dict[int, tuple[str, str, str]] = {}
        self._seq, self._bd_seq, self._born, self._connection = 0, -1, False, 0
        for message, decoded in zip(heard, decode(heard), strict=True):
            if message.connection != self._connection:
                self._connection, self._born = message.connection, False
            self._one(message, decoded)

    def _one(self, heard: Heard, m: dict[str, Any]) -> None:
        parts = heard.topic.split("/")
        kind, plc = parts[2], parts[4] if len(parts) > 4 else ""
        assert parts[0] == "spBv1.0", "topic-structure-namespace-a"
        assert (parts[1], parts[3]) == NODE, f"topics-{kind.lower()}-topic"
        assert kind in ("NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "DDATA"), kind
        assert len(parts) == (5 if kind[0] == "D" else 4), (
            "topic-structure-namespace-device-id-associated-message-types"
        )
        of_row = kind == "DDATA" and m["body"]
        wanted = 1 if kind == "NDEATH" else self.qos if of_row else 0
        assert heard.qos == wanted, f"topics-{kind.lower()}-mqtt"
        assert not heard.retain, f"payloads-{kind.lower()}-retain"
        assert int(m["timestamp"]) > 1_700_000_000_000, f"payloads-{kind.lower()}-timestamp"
        for metric in m["metrics"]:
            assert metric["wire"]["timed"], "payloads-name-birth-data-requirement"
            assert metric["wire"]["is_null"] != metric["wire"]["valued"], (
                "operational-behavior-data-publish-dbirth-values"
            )
            properties(metric)
        if kind == "NDEATH":
            self._ndeath(m)
            return
        assert "seq" in m, "payloads-sequence-num-always-included"
        if kind == "NBIRTH":
            self._nbirth(m)
            return
        if not self._born:
            assert kind != "NBIRTH"
            return  # the host was away when the births came
        self._seq = (self._seq + 1) % 256
        assert m["seq"] == self._seq, f"payloads-sequence-num-incrementing: {kind}"
        {"DBIRTH": self._dbirth, "DDEATH": self._ddeath, "DDATA": self._ddata}[kind](plc, m)

    def _ndeath(self, m: dict[str, Any]) -> None:
        assert "seq" not in m, "payloads-ndeath-seq"
        assert [metric["name"] for metric in m["metrics"]] == ["bdSeq"], "topics-ndeath-payload"
        if int(m["metrics"][0]["value"]) == self._bd_seq:
            self._born = False
            self.alive.clear()

    def _nbirth(self, m: dict[str, Any]) -> None:
        assert m["seq"] == 0, "topics-nbirth-seq-num"
        found = {metric["name"]: metric for metric in m["metrics"]}
        assert int(found["bdSeq"]["value"]) in range(256), "topics-nbirth-bdseq-included"
        rebirth = found["Node Control/Rebirth"]
        assert (rebirth["type"], rebirth["value"]) == ("Boolean", False), (
            "operational-behavior-data-commands-rebirth-datatype"
        )
        assert not rebirth["wire"]["aliased"], (
            "operational-behavior-data-commands-rebirth-name-aliases"
        )
        if self._born:
            assert int(found["bdSeq"]["value"]) == self._bd_seq, (
                "operational-behavior-data-commands-rebirth-action-3"
            )
        self._bd_seq = int(found["bdSeq"]["value"])
        self._seq, self._born, self._only_births = 0, True, True
        self._names = {}
        self.alive.clear()

    def _dbirth(self, plc: str, m: dict[str, Any]) -> None:
        names, last = set(), 0
        for metric in m["metrics"]:
            wire, alias = metric["wire"], int(metric["alias"])
            assert all((wire["named"], wire["aliased"])), "payloads-alias-birth-requirement"
            assert wire["typed"], "payloads-metric-datatype-req"
            assert metric["type"] in BASIC_TYPES, "payloads-metric-datatype-value"
            known = self._names.setdefault(alias, (plc, metric["name"], metric["type"]))
            assert known == (plc, metric["name"], metric["type"]), "payloads-alias-uniqueness"
            assert metric["name"] not in names, "topics-dbirth-metrics"
            names.add(metric["name"])
            assert int(metric["timestamp"]) >= last, (
                "operational-behavior-data-publish-dbirth-order"
            )
            last = int(metric["timestamp"])
            self._show(plc, metric["name"], metric)
        self.alive.add(plc)
        self.births.append(m)

    def _ddeath(self, plc: str, m: dict[str, Any]) -> None:
        assert plc in self.alive, "a DDEATH of a device that is not alive"
        assert not m["metrics"]
        self.alive.discard(plc)

    def _ddata(self, plc: str, m: dict[str, Any]) -> None:
        assert plc in self.alive, "payloads-ddata-order"
        readings, last = [], 0
        for metric in m["metrics"]:
            wire = metric["wire"]
            assert (wire["aliased"], wire["named"]) == (True, False), (
                "payloads-alias-data-cmd-requirement"
            )
            assert not wire["typed"], "payloads-metric-datatype-not-req"
            owner, name, _ = self._names[int(metric["alias"])]
            assert owner == plc, "payloads-alias-uniqueness"
            historical = bool(metric.get("isHistorical"))
            if not historical:
                assert int(metric["timestamp"]) >= last, (
                    "operational-behavior-data-publish-dbirth-order"
                )
                last = int(metric["timestamp"])
                self._show(plc, name, metric)
            found = properties(metric)
            readings.append(
                Reading(
                    name, metric["value"], int(metric["timestamp"]), historical,
                    found.get("Quality"), found.get("reason", ""),
                )
            )  # fmt: skip
        if not m["body"]:
            return  # what a backlog left is told as current
        told = orjson.loads(m["body"])
        if "reason" in told:
            self.gaps.append(told)
            return
        key = (plc, told["epoch"], told["seq"])
        self.delivered.append(key)
        self.readings[key] = readings

    def _show(self, plc: str, name: str, metric: dict[str, Any]) -> None:
        key = f"{plc}/{name}"
        self.current[key] = metric["value"]
        found = properties(metric)
        if "Quality" in found:
            self.quality[key] = found["Quality"]
        else:
            assert self.quality[key] == 192, f"payloads-propertyset: {key} was not good"

    def missing(self, rows: list[Any], refused: dict[int, str]) -> list[Any]:
        """Rows (of a DispatchPeer) that are neither delivered nor refused nor gap messages told."""
        there = set(self.delivered)
        told = {(g["plc_id"], g["epoch"], g["first_seq"]) for g in self.gaps}
        return [
            r[:7]
            for r in rows
            if (r[2], r[5], r[6]) not in (told if r[1] else there) and r[0] not in refused
        ]


def properties(metric: dict[str, Any]) -> dict[str, Any]:
    """Name -> value, checked."""
    found: dict[str, Any] = {}
    for name, p in (metric.get("properties") or {}).items():
        assert p["type"] in ("Int32", "String"), "payloads-metric-propertyvalue-type-value"
        found[name] = p["value"]
    if "Quality" in found:
        quality = metric["properties"]["Quality"]
        assert quality["type"] == "Int32", "payloads-propertyset-quality-value-type"
        assert quality["value"] in (0, 192, 500), "payloads-propertyset-quality-value-value"
    return found


def values(judge: Judge, key: tuple[str, int, int]) -> Iterator[tuple[str, Any]]:
    """(metric, value) of a row as a host reads it; whole numbers of 64 bits are text."""
    yield from ((r.name, r.value) for r in judge.readings[key])
