"""Messages as InfluxDB line protocol, with the types that Telegraf gives them (infra/telegraf):
numbers and booleans as float, text as ``<field>_txt``, one type per field name for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from bus.frames import GAP_ROW
from services.consumer.row import Row

GAP_MEASUREMENT = "plc_gap"
_TAGS = ("site", "locatario_id", "plc_id", "ip", "db", "group", "machine", "quality")
_GAP_FIELDS = ("count", "first_seq", "last_seq", "from_ts", "to_ts")
# (factor, divisor) from milliseconds, by the URL's ``precision``; whole numbers, as ns since 1970
# are more than a float holds.
PRECISIONS = {"ns": (1_000_000, 1), "us": (1_000, 1), "ms": (1, 1), "s": (1, 1_000)}


def line(row: Row, precision: str = "ns") -> bytes:
    """One point; ValueError where the body is no message of ours."""
    message = orjson.loads(row.body)
    gap = row.kind == GAP_ROW
    if gap:
        fields = {k: float(message[k]) for k in _GAP_FIELDS if message.get(k) is not None}
        fields_text = [f"{k}={v!r}" for k, v in fields.items()]
        fields_text.append(f"reason_txt={_quoted(str(message.get('reason', '')))}")
    else:
        fields_text = [f"latency_ms={float(message.get('latency_ms', 0.0))!r}"]
        for name, value in message["values"].items():
            fields_text += _fields(name, value)
    measurement = GAP_MEASUREMENT if gap else message["measurement"]
    tags = "".join(
        f",{tag}={_escaped(str(message[tag]), ',= ')}"
        for tag in _TAGS
        if message.get(tag) not in (None, "")
    )
    factor, divisor = PRECISIONS[precision]
    ts = int(message["ts"]) * factor // divisor
    return f"{_escaped(measurement, ', ')}{tags} {','.join(fields_text)} {ts}".encode()


def _fields(name: str, value: Any) -> Iterator[str]:
    """An array's elements are fields of their own, ``name.0`` …; null is left out."""
    if isinstance(value, list):
        for i, element in enumerate(value):
            yield from _fields(f"{name}.{i}", element)
    elif isinstance(value, bool | int | float):
        yield f"{_escaped(name, ',= ')}={float(value)!r}"
    elif isinstance(value, str):
        yield f"{_escaped(name + '_txt', ',= ')}={_quoted(value)}"


def _escaped(value: str, special: str) -> str:
    """Names and tags: a backslash before what is special; a line must stay one line."""
    value = value.replace("\n", " ").replace("\r", " ")
    for character in special:
        value = value.replace(character, "\\" + character)
    # A trailing backslash would escape the separator that follows; so it escapes a space.
    return value + " " if value.endswith("\\") else value


def _quoted(value: str) -> str:
    """Text field."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
