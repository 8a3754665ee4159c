"""A subscriber with a persistent session (MQTT 3.1.1, QoS 1) that writes down all that comes.

A process of its own, so that nothing of the test slows it: ``python -P -m tests.kit.mqtt_witness
FILE.json``; its keys are the parameters of ``Witness``. One line for each message, ``arrival_ms plc
epoch seq crc32 ts_ms``, and ``# what arrival_ms text`` for what becomes of its connection.
"""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.kit.common import ROOT, until

KEEPALIVE_S = 4
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as it came."""

    arrival_ms: int
    plc: str
    epoch: int
    seq: int
    crc32: int
    ts_ms: int


class Witness:
    """Starts the process and reads what it has written. It tries ``hosts`` in turn."""

    def __init__(
        self,
        folder: Path,
        *,
        hosts: Sequence[str],
        port: int,
        ca: Path,
        user: str,
        password: Path,
        topics: Sequence[str],
    ) -> None:
        self.file = folder / f"{user}.log"
        config = folder / f"{user}.json"
        keys = {"hosts": list(hosts), "port": port, "ca": str(ca), "user": user}
        more = {"password": str(password), "topics": list(topics), "out": str(self.file)}
        config.write_text(json.dumps(keys | more))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.kit.mqtt_witness", str(config)],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def said(self, what: str) -> list[tuple[int, str]]:
        """(time, text) of what became of its connection: ``subscribed``, ``session``, ``lost``."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        marks = (line.split(" ", 3) for line in lines if line.startswith("# "))
        return [(int(at), text) for _, kind, at, text in marks if kind == what]

    def arrivals(self) -> Iterator[Arrival]:
        """All so far, in order."""
        for line in self.file.read_text().splitlines():
            if not line.startswith("#"):
                at, plc, *numbers = line.split()
                yield Arrival(int(at), plc, *map(int, numbers))

    def __enter__(self) -> Self:
        until(lambda: self.said("subscribed"), 30, "the witness has its subscription")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait(10)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def witness(config: dict[str, Any], out: IO[str]) -> None:
    """Runs until SIGTERM."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=config["user"], clean_session=False,
        protocol=paho.MQTTv311,
    )  # fmt: skip
    client.username_pw_set(config["user"], Path(config["password"]).read_text().strip())
    client.tls_set_context(ssl.create_default_context(cafile=config["ca"]))

    def note(what: str, text: object) -> None:
        out.write(f"# {what} {_now_ms()} {text}\n")
        out.flush()

    def on_connect(_c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        note("session", f"{client.host} {'kept' if flags.session_present else 'new'} {reason}")
        # Again where the session is kept: it changes nothing, and mends a half-made one.
        client.subscribe([(topic, 1) for topic in config["topics"]])

    def on_message(_c: Any, _u: Any, m: paho.MQTTMessage) -> None:
        body = orjson.loads(m.payload)
        out.write(
            f"{_now_ms()} {body['plc_id']} {body['epoch']} {body['seq']}"
            f" {zlib.crc32(m.payload)} {body['ts']}\n"
        )

    client.connect_timeout = 3
    client.on_connect = on_connect
    client.on_message = on_message
    client.on_subscribe = lambda c, u, mid, reasons, p: note("subscribed", reasons)
    turn = 0
    while not stop:
        host = config["hosts"][turn % len(config["hosts"])]
        turn += 1
        try:
            client.connect(host, config["port"], KEEPALIVE_S)
            flushed_s = time.monotonic()
            while not stop and client.loop(0.2) == paho.MQTT_ERR_SUCCESS:
                if time.monotonic() - flushed_s > 0.2:
                    out.flush()
                    flushed_s = time.monotonic()
            note("lost", host)
        except OSError as e:
            note("lost", f"{host} {e}")
        time.sleep(RETRY_S)


if __name__ == "__main__":
    keys = json.loads(Path(sys.argv[1]).read_text())
    with Path(keys["out"]).open("w", buffering=1 << 16) as file:
        witness(keys, file)
