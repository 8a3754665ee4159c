"""``plc-edge demo``: the whole main job on this machine, self-contained, gone with Ctrl-C."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import paho.mqtt.client as mqtt
import typer
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from services.cli.children import Children, demonstration
from services.cli.common import console, fail
from services.cli.demo_broker import EDGE_USER, VIEWER_USER, DemoBroker, free_port
from services.runtime import assets

FIRST_MESSAGE_S = 30.0
# Lines on the terminal, per second: readable, and proof enough.
LINES_PER_S = 4


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Show the main job on this machine: simulated PLCs to MQTT.")(demo)


def demo(
    plcs: Annotated[int, typer.Option(min=1, max=50, help="Simulated PLCs.")] = 2,
    seconds: Annotated[float, typer.Option(help="Stop after so long; 0: until Ctrl-C.")] = 0.0,
    host: Annotated[str, typer.Option(help="A real PLC instead of simulated ones.")] = "",
    db: Annotated[int, typer.Option(min=1, max=65_535, help="Its data block.")] = 500,
    slot: Annotated[int, typer.Option(min=0, max=31, help="Its slot.")] = 1,
    layout: Annotated[Path | None, typer.Option(help="Layout of its block.")] = None,
) -> None:
    """Starts simulators, broker and site in a folder of their own; prints live messages."""
    if layout is not None and not layout.is_file():
        fail(f"layout {layout} does not exist; make one with `plc-edge layout import`", 2)
    with demonstration() as children:
        _Demo(children).run(plcs, host, slot, db, layout, seconds)


class _Demo:
    def __init__(self, children: Children) -> None:
        self.folder = children.folder
        self.children = children
        self.started_s = time.monotonic()

    def run(
        self, plcs: int, host: str, slot: int, db: int, layout: Path | None, seconds: float
    ) -> None:
        broker = DemoBroker(self.folder / "broker")
        if broker.mosquitto is None:
            console.print("Mosquitto is not installed: using the embedded broker (amqtt)")
        self.children.start("broker", broker.command())
        metrics_port = free_port()
        config = _config(self.folder, broker, metrics_port)
        if host:
            file = (layout or assets.path("layouts/db500.yaml")).resolve()
            group = {"name": f"db{db}", "db": db, "scan": "500ms", "layout": str(file)}
            config["plcs"] = [{"id": "plc-01", "host": host, "slot": slot, "groups": [group]}]
        else:
            config["plcs"] = [_simulated(n) for n in range(plcs)]
            config["mirrors"] = _mirrors(config["plcs"])
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        plc_edge = [sys.executable, "-P", "-m", "services.cli.main"]
        if not host:
            self.children.start("simulate", [*plc_edge, "simulate", "--config", str(file)])
        site = self.children.start("site", [*plc_edge, "run", "--config", str(file)])
        with _subscribe(broker) as messages:
            self._show(messages, broker, site, metrics_port, seconds)

    def _show(
        self,
        messages: list[tuple[str, bytes]],
        broker: DemoBroker,
        site: subprocess.Popen[bytes],
        metrics_port: int,
        seconds: float,
    ) -> None:
        end_s = time.monotonic() + seconds if seconds else float("inf")
        first = True
        count = shown = 0
        while time.monotonic() < end_s:
            time.sleep(1 / LINES_PER_S)
            if site.poll() is not None:
                fail(f"the site ended:\n{self.children.tail('site')}")
            if first and not messages and time.monotonic() > self.started_s + FIRST_MESSAGE_S:
                fail(f"no message in {FIRST_MESSAGE_S:.0f} s:\n{self.children.tail('site')}")
            if not messages:
                continue
            if first:
                first = False
                took_s = time.monotonic() - self.started_s
                console.print(f"first message after {took_s:.1f} s")
                console.print(f"dashboard   http://127.0.0.1:{metrics_port}/")
                command = broker.subscribe_command()
                console.print(f"messages    {command}", highlight=False, soft_wrap=True)
                console.print(f"history     http://127.0.0.1:{metrics_port}/history")
                console.print(f"status      plc-edge status -c {self.folder}/config.yaml")
                console.print(f"logs        {self.folder}/state/log/     Ctrl-C stops everything\n")
            count += len(messages)
            topic, payload = messages[-1]
            messages.clear()
            shown += 1
            console.print(f"{topic} {payload.decode()}", markup=False, soft_wrap=True)
        if first:
            fail(f"no message in {seconds:g} s:\n{self.children.tail('site')}")
        console.print(f"{count} messages, {shown} of them shown")


def _config(folder: Path, broker: DemoBroker, metrics_port: int) -> dict[str, Any]:
    return {
        "site": "demo",
        "locatario": "acme",
        # It is a trial: on a machine without NTP, too, the values are to be looked at.
        "clock_sync": "ignored",
        "paths": {"state": str(folder / "state"), "runtime": str(folder / "run")},
        "outputs": [
            {
                "name": "central",
                "type": "mqtt",
                "host": "127.0.0.1",
                "port": broker.port,
                "version": 5 if broker.mosquitto else "3.1.1",
                "username": EDGE_USER,
                "password_file": str(broker.password_file(EDGE_USER)),
                "tls": {"ca": str(broker.ca)},
            }
        ],
        "history": {},
        "metrics": {"port": metrics_port},
    }


def _simulated(n: int) -> dict[str, Any]:
    """A press (one machine, with its bytes on the bus) or a furnace (five machines)."""
    if n % 2 == 0:
        name, group = (
            f"prensa-{n + 1:02d}",
            {
                "name": "db500",
                "db": 500,
                "scan": "500ms",
                "layout": str(assets.path("layouts/db500.yaml")),
                "raw": True,
            },
        )
    else:
        name, group = (
            f"forno-{n + 1:02d}",
            {
                "name": "maquinas",
                "db": 500,
                "scan": "1s",
                "layout": str(assets.path("layouts/db500_maquinas.yaml")),
                "machines": {"count": 5, "stride": 66},
            },
        )
    tenant = {} if n < 2 else {"locatario": "beta"}
    return {"id": name, **tenant, "host": "127.0.0.1", "port": free_port(), "groups": [group]}


def _mirrors(plcs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first PLC's block, copied to the second one."""
    if len(plcs) < 2:
        return []
    target = {"host": plcs[1]["host"], "port": plcs[1]["port"], "db": 600}
    source = {"plc": plcs[0]["id"], "group": "db500"}
    return [{"name": "copia-db500", "source": source, "target": target, "enabled": True}]


@contextlib.contextmanager
def _subscribe(broker: DemoBroker) -> Iterator[list[tuple[str, bytes]]]:
    """The messages that a subscriber receives, in a list that grows."""
    received: list[tuple[str, bytes]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="plc-edge-demo-viewer")
    client.username_pw_set(VIEWER_USER, broker.passwords[VIEWER_USER])
    client.tls_set(str(broker.ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)

    def on_connect(*_: Any) -> None:
        client.subscribe("plc/+/+", qos=1)

    def on_message(_client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        received.append((message.topic, bytes(message.payload)))

    client.on_connect = on_connect
    client.on_message = on_message
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", broker.port)
    client.loop_start()
    try:
        yield received
    finally:
        client.disconnect()
        client.loop_stop()
