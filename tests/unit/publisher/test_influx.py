"""Line protocol: types, names, escapes; one line whatever the names are."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.consumer.row import Row
from services.publisher.outputs.influx import line


def row(message: dict[str, Any], kind: int = SAMPLE_ROW) -> Row:
    return Row(1, "live", 0, 1, kind, "p1", "acme", 0, 1, 1, orjson.dumps(message))


def sample(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"measurement": "s7_db1", "plc_id": "p1", "ts": 1764000000123, "latency_ms": 1.0}
    return {**base, "values": values, **more}


def test_numbers_and_booleans_are_float_text_has_a_name_of_its_own() -> None:
    text = line(row(sample({"i": 3, "f": 0.12, "b": False, "t": "ok", "a": [1, [True]]}))).decode()
    assert text == (
        's7_db1,plc_id=p1 latency_ms=1.0,i=3.0,f=0.12,b=0.0,t_txt="ok",a.0=1.0,a.1.0=1.0'
        " 1764000000123000000"
    )


@pytest.mark.parametrize(("precision", "ts"), [("ns", 10**6), ("us", 10**3), ("ms", 1)])
def test_precision_of_the_url(precision: str, ts: int) -> None:
    assert line(row(sample({})), precision).endswith(f" {1764000000123 * ts}".encode())
    assert line(row(sample({})), "s").endswith(b" 1764000000")


def test_a_message_without_values_is_still_a_point() -> None:
    text = line(row(sample({}, quality="bad", machine="m 1"))).decode()
    assert text.startswith("s7_db1,plc_id=p1,machine=m\\ 1,quality=bad latency_ms=1.0 ")


def test_gap() -> None:
    gap = {"plc_id": "p1", "ts": 5, "first_seq": 1, "last_seq": None, "count": 4, "reason": "full"}
    assert line(row(gap, GAP_ROW), "ms") == (
        b'plc_gap,plc_id=p1 count=4.0,first_seq=1.0,reason_txt="full" 5'
    )


def parse(data: str) -> tuple[str, str, str]:
    """(measurement and tags, fields, time), as InfluxDB's parser finds them: a backslash before
    what is special takes its meaning away, quotes count only after an unescaped ``=``."""
    parts: list[str] = []
    start, quoted, value = 0, False, False
    for i, c in enumerate(data):
        escaped = i > 0 and data[i - 1] == "\\"
        if len(parts) == 1:
            if quoted:
                # In text a backslash can be escaped itself.
                before = data[start:i]
                slashes = len(before) - len(before.rstrip("\\"))
                quoted = not (c == '"' and slashes % 2 == 0)
                continue
            if c == "=" and not escaped:
                value = True
                continue
            if c == '"' and value:
                quoted = True
            value = False
        if c == " " and not escaped:
            parts.append(data[start:i])
            start = i + 1
    return (*parts, data[start:])  # type: ignore[return-value]


@given(
    st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable()),
    st.text(max_size=30),
)
def test_no_name_or_text_breaks_the_line(name: str, text: str) -> None:
    data = line(row(sample({name: 1.5, "t": text}, machine=name)), "ms").decode()
    head, fields, ts = parse(data)
    assert ts == "1764000000123"
    assert head.startswith("s7_db1,plc_id=p1,machine=")
    assert fields.startswith("latency_ms=1.0,")
    assert len(re.findall(r"(?<!\\)=", head)) == 2


def test_large_time_keeps_its_milliseconds() -> None:
    assert line(row(sample({}, ts=1764000000123))).endswith(b" 1764000000123000000")
