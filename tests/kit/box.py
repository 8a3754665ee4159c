"""A whole plant on one machine: simulated PLCs, a real Mosquitto with TLS, a site, a subscriber.

with Box(plcs=2) as box:
    box.site.kill("metrics")
    box.messages("prensa-01")
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from services.cli.demo_broker import EDGE_USER, VIEWER_USER, DemoBroker
from tests.kit.common import ROOT, free_port, free_ports, until
from tests.kit.simulator import Simulator
from tests.kit.site import Site

LAYOUT = str(ROOT / "deploy" / "layouts" / "db500.yaml")


def plc(name: str, port: int, scan: str = "100ms", **more: Any) -> dict[str, Any]:
    """One PLC with the DB500 of one machine, every scan published."""
    group = {"name": "db500", "db": 500, "scan": scan, "layout": LAYOUT, "publish": "always"}
    return {
        "id": name,
        "host": "127.0.0.1",
        "port": port,
        "heartbeat": "1s",
        "groups": [{**group, **more}],
    }


class Subscriber:
    """Everything that came over the broker, in the order it came.

    Its session outlives the connection (and the broker, see ``Box.start_broker``): after a restart
    the publisher may be back first, and what it then sends is kept for this one.
    """

    def __init__(self, broker: DemoBroker) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id="subscriber",
            clean_session=False,
            protocol=mqtt.MQTTv311,
        )
        client.username_pw_set(VIEWER_USER, broker.passwords[VIEWER_USER])
        client.tls_set(str(broker.ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.on_connect = lambda c, *_: c.subscribe([("plc/#", 1), ("edge/#", 1)])
        client.on_message = lambda _c, _u, m: self.received.append(
            (m.topic, bytes(m.payload), m.retain)
        )
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.reconnect_delay_set(1, 1)
        client.connect_async("127.0.0.1", broker.port)
        client.loop_start()
        self._client = client
        # What is published before this is not for us.
        assert subscribed.wait(10), "the broker does not answer"

    def data(self, plc_id: str) -> list[dict[str, Any]]:
        """The data messages of one PLC."""
        return [json.loads(p) for t, p, _ in list(self.received) if t.split("/")[2:] == [plc_id]]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Box:
    """``changes`` go into the site's configuration. ``state_mb``: the state folder is a disk of its
    own of that size (a tmpfs: root only). ``launcher``: as of ``Site``.
    """

    def __init__(
        self,
        plcs: int = 2,
        scan: str = "100ms",
        *,
        state_mb: int = 0,
        launcher: Sequence[str] = (),
        **changes: Any,
    ) -> None:
        self._state_mb = state_mb
        self._launcher = launcher
        self._ports = free_ports(plcs + 1)
        names = [f"prensa-{n + 1:02d}" for n in range(plcs)]
        self.config: dict[str, Any] = {
            "site": "e2e",
            "locatario": "acme",
            "plcs": [plc(n, p, scan) for n, p in zip(names, self._ports, strict=False)],
            "metrics": {"port": self._ports[-1]},
        }
        self.config.update(changes)
        self.real_plcs: list[dict[str, Any]] = []
        """PLCs that the site reads and the simulator does not serve."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            if self.config["plcs"]:
                self.simulator = stack.enter_context(Simulator(self.config))
            self.site = Site(self.config, self._launcher)
            if self._state_mb:
                self._mount(self.site.state)
                stack.callback(self._unmount)
            self.broker = DemoBroker(self.site.folder / "broker")
            self.broker.port = free_port()
            # That one port another box, or a demo, may have taken when this broker comes back.
            self.broker.plain_port = None
            self._start_broker()
            stack.callback(self.stop_broker)
            self.config["outputs"] = [
                {"name": "central", "type": "mqtt", "host": "127.0.0.1", "from": "oldest",
                 "port": self.broker.port, "tls": {"ca": str(self.broker.ca)},
                 "username": EDGE_USER,
                 "password_file": str(self.broker.password_file(EDGE_USER))},
            ]  # fmt: skip
            self.config["plcs"] += self.real_plcs
            self.site.configure(self.config)
            self.subscriber = Subscriber(self.broker)
            stack.callback(self.subscriber.close)
            stack.enter_context(self.site)
            self.site.wait_running()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _mount(self, folder: Path) -> None:
        folder.mkdir()
        size = f"size={self._state_mb}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.site.state)], check=True)
        shutil.rmtree(self.site.folder, ignore_errors=True)

    def _start_broker(self) -> None:
        command = self.broker.command()
        with (self.broker.folder / "mosquitto.conf").open("a") as conf:
            # The subscriber's session survives a restart, and the broker drops nothing for it. (Of
            # an hour's backlog it did, beyond 100,000 messages.)
            conf.write("max_queued_messages 0\n")
            conf.write(f"persistence true\npersistence_location {self.broker.folder}/\n")
        log = self.site.folder / "broker.log"
        with log.open("ab") as file:
            self._broker = subprocess.Popen(command, stdout=file, stderr=file)

        def listens() -> bool:
            assert self._broker.poll() is None, log.read_text()
            socket.create_connection(("127.0.0.1", self.broker.port), 1).close()
            return True

        until(listens, 10, log.read_text)

    def stop_broker(self) -> None:
        """Ends Mosquitto, which writes its sessions down."""
        self._broker.terminate()
        self._broker.wait(10)

    def start_broker(self) -> None:
        """Starts it again, on its port."""
        self._start_broker()

    def wait_for_messages(self, plc_id: str, count: int, timeout_s: float = 20) -> None:
        """Returns when so many more data messages of a PLC have come."""
        goal = len(self.subscriber.data(plc_id)) + count
        why = f"{count} messages of {plc_id}\n{self.site.logs()}"
        until(lambda: len(self.subscriber.data(plc_id)) >= goal, timeout_s, why)
