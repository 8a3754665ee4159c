"""The JSON object of CONTRACT §4, made once per message; everybody downstream carries its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from services.s7.encode import Encoded

VERSION = 1


class Message:
    """The messages of one record: what never changes is encoded once."""

    def __init__(
        self,
        *,
        site: str,
        locatario: str,
        plc: str,
        ip: str,
        group: str,
        measurement: str,
        db: int | None,
        machine: str | None,
    ) -> None:
        head: dict[str, Any] = {
            "v": VERSION,
            "site": site,
            "locatario_id": locatario,
            "plc_id": plc,
            "ip": ip,
            "db": db,
            "group": group,
            "measurement": measurement,
            "machine": machine,
        }
        self._head = orjson.dumps({k: v for k, v in head.items() if v is not None})[:-1]

    def move(self, ip: str) -> None:
        """The PLC is read at another address from now on."""
        head = orjson.loads(self._head + b"}")
        self._head = orjson.dumps({**head, "ip": ip})[:-1]

    def body(
        self,
        ts_ms: int,
        quality: str,
        latency_ms: float,
        values: Mapping[str, Any],
        bad: Mapping[str, str],
    ) -> Callable[[int, int], bytes]:
        """A function (epoch, seq) -> the JSON; it costs nothing until the message is numbered.

        ``values`` holds no NaN, infinity or integer beyond 2^53 (services/s7/decode.py).
        """

        def make(epoch: int, seq: int) -> bytes:
            # services/reader/keep.py relies on epoch and seq standing side by side.
            head = b'%s,"ts":%d,"epoch":%d,"seq":%d,"quality":"%s","latency_ms":%.2f,"values":' % (
                self._head,
                ts_ms,
                epoch,
                seq,
                quality.encode(),
                latency_ms,
            )
            json = values.json if isinstance(values, Encoded) else orjson.dumps(values)
            tail = b',"bad":%s}' % orjson.dumps(bad) if bad else b"}"
            return b"".join((head, json, tail))

        return make
