"""The edge node against what a host is entitled to, for rows in any order and of any content."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tahutils.tahu.sparkplug_b_pb2 import DataType

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.consumer.row import Row
from services.publisher.sparkplug.metrics import Misfit, new_payload, put
from services.publisher.sparkplug.node import Message, Node
from tests.kit.sparkplug import FIELDS, plc

NOW_MS = 1_800_000_000_000


def row(plc_id: str, seq: int, message: Any, kind: int = SAMPLE_ROW, ts_ms: int = NOW_MS) -> Row:
    body = message if isinstance(message, bytes) else orjson.dumps({"ts": ts_ms, **message})
    return Row(1, "live", seq, seq, kind, plc_id, "acme", ts_ms, 1, seq, body)


class Host:
    """What a host knows, from nothing but the messages."""

    def __init__(self) -> None:
        self.names: dict[int, tuple[str, str, int]] = {}
        self.alive: set[str] = set()
        self.current: dict[tuple[str, str], Any] = {}

    def hear(self, message: Message) -> dict[str, tuple[Any, bool]]:
        """The readings of a DDATA: name -> (value, historical)."""
        _, _, kind, _, *rest = message.topic.split("/")
        if kind == "NBIRTH":
            self.names.clear()
            self.alive.clear()
            return {}
        device, metrics = rest[0], message.payload.metrics
        if kind == "DBIRTH":
            self.alive.add(device)
            for m in metrics:
                known = self.names.setdefault(m.alias, (device, m.name, m.datatype))
                assert known == (device, m.name, m.datatype)
                self.current[device, m.name] = _value(m, m.datatype)
            return {}
        assert device in self.alive, f"{kind} of a device that is not alive"
        if kind == "DDEATH":
            self.alive.discard(device)
            return {}
        found = {}
        for m in metrics:
            owner, name, datatype = self.names[m.alias]
            assert owner == device
            found[name] = (_value(m, datatype), m.is_historical)
            if not m.is_historical:
                self.current[device, name] = _value(m, datatype)
        return found


def _value(m: Any, datatype: int) -> Any:
    if m.is_null:
        assert m.WhichOneof("value") is None
        return None
    value = getattr(m, m.WhichOneof("value"))
    bits = {1: 32, 2: 32, 3: 32, 4: 64}.get(datatype)
    return value - (1 << bits) if bits and value >> (bits - 1) else value


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {
            "group": st.sampled_from(["db500", "outro"]),
            "quality": st.sampled_from(["good", "bad", "uncertain"]),
            "values": st.dictionaries(
                st.sampled_from(["n", "temperatura", "rodando", "x"]), VALUES
            ),
            "bad": st.dictionaries(
                st.sampled_from(["*", "n", "y"]), st.sampled_from(["plc_offline", "nan"])
            ),
        }
    ),
    st.just({"epoch": 1, "first_seq": 3, "last_seq": None, "count": None, "reason": "full"}),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["prensa-01", "removida"]), MESSAGES, st.booleans(), st.integers(0, 9)
        ),
        max_size=25,
    )
)
def test_every_row_is_told_whatever_comes(steps: list[tuple[str, Any, bool, int]]) -> None:
    node, host = Node("acme", "planta-sp", [plc()]), Host()
    for message in node.births(NOW_MS):
        host.hear(message)
    newest: dict[tuple[str, str], Any] = {}
    for seq, (device, content, historical, chance) in enumerate(steps, 1):
        kind = GAP_ROW if "reason" in content else SAMPLE_ROW
        *before, own = node.take(row(device, seq, content, kind), historical, NOW_MS)
        for message in before:
            host.hear(message)
        readings = host.hear(own)
        assert json.loads(own.payload.body).get("seq", seq) == seq
        assert all(h == historical for _, h in readings.values())
        if kind == GAP_ROW:
            assert readings["_gap/first_seq"] == (3, historical)
            continue
        for name, value in content["values"].items():
            full = f"{content['group']}/{name}"
            found = [v for n, (v, _) in readings.items() if n.split(":")[0] == full]
            assert any(_same(v, value) for v in found), (full, value, readings)
        newest |= {(device, name): value for name, (value, _) in readings.items()}
        if chance == 0:
            for message in [*node.catch_up(NOW_MS), *node.deaths(NOW_MS)]:
                host.hear(message)
        if chance == 1:
            for message in node.births(NOW_MS):
                host.hear(message)
        if chance == 2:
            changed = node.configure([plc(FIELDS[: 1 + seq % 3])])
            if changed:
                for message in node.births(NOW_MS):
                    host.hear(message)
    node.offline.clear()
    for message in node.catch_up(NOW_MS):
        host.hear(message)
    for (device, name), value in newest.items():
        if device in host.alive and (device, name) in host.current and device in node._devices:
            known = node._devices[device].metrics.get(name)
            if known is not None and known.ts_ms:
                assert host.current[device, name] == value, "the newest is current"


def _same(read: Any, sent: Any) -> bool:
    if isinstance(sent, bool) or isinstance(read, bool):
        return read is sent
    if isinstance(sent, int | float) and isinstance(read, int | float):
        return read == sent or abs(read - sent) <= abs(sent) * 1e-7 + 1e-45
    return bool(read == sent)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("Int8", 128), ("Int8", -129), ("Int16", 1.0), ("Int32", True), ("Int32", "1"),
        ("UInt8", -1), ("UInt16", 65_536), ("UInt64", str(2**64)), ("Int64", str(2**63)),
        ("Int64", "x"), ("Float", 3.5e38), ("Float", "1"), ("Double", True), ("Boolean", 1),
        ("String", 1), ("DateTime", "1969-12-31T23:59:59"), ("DateTime", "ontem"),
        ("DateTime", 1.5), ("DateTime", True), ("DateTime", -1),
    ],
)  # fmt: skip
def test_what_a_datatype_does_not_hold_is_not_bent_into_it(datatype: str, value: Any) -> None:
    with pytest.raises(Misfit):
        put(new_payload(NOW_MS).metrics.add(), datatype, value, "UTC")


def test_the_largest_real_is_a_float() -> None:
    """A reader writes it in its shortest form, which is more than it is."""
    m = new_payload(NOW_MS).metrics.add()
    put(m, "Float", 3.4028235e38, "UTC")
    assert m.float_value == 3.4028234663852886e38


def test_a_second_that_does_not_exist_or_comes_twice_has_one_meaning() -> None:
    """São Paulo put its clocks forward at 2018-11-04 00:00 and back at 2018-02-18 00:00."""
    for text, ms in (
        ("2018-02-17T23:30:00", 1_518_917_400_000),
        ("2018-11-04T00:30:00.999999999", 1_541_302_200_999),
    ):
        metric = new_payload(NOW_MS).metrics.add()
        put(metric, "DateTime", text, "America/Sao_Paulo")
        assert metric.long_value == ms


def test_aliases_are_one_metric_s_for_ever() -> None:
    node = Node("acme", "planta-sp", [plc()])
    seen: dict[int, tuple[str, str]] = {}
    for fields in (FIELDS, FIELDS[:1], FIELDS[1:], FIELDS):
        node.configure([plc(fields), plc(fields, id="forno-02")])
        for message in node.births(NOW_MS):
            for m in message.payload.metrics:
                if m.HasField("alias"):
                    name = (message.topic, m.name)
                    assert seen.setdefault(m.alias, name) == name
    assert len(seen) == 2 * (3 + 7)


def test_a_change_of_type_or_unit_is_a_birth_and_the_value_is_not_kept() -> None:
    node = Node("acme", "planta-sp", [plc()])
    list(node.births(NOW_MS))
    node.take(row("prensa-01", 1, {"group": "db500", "quality": "good", "values": {"n": 1}}),
              False, NOW_MS)  # fmt: skip
    assert not node.configure([plc()])
    assert node.configure([plc([{**FIELDS[0], "type": "REAL"}, *FIELDS[1:]])])
    birth = list(node.births(NOW_MS))[1].payload
    found = {m.name: m for m in birth.metrics}
    assert found["db500/n"].datatype == DataType.Value("Float")
    assert found["db500/n"].is_null
