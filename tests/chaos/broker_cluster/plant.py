"""Boxes at a cluster: real publishers, each with one MQTT connection for each of its tenants, fed
at a rate, and a subscriber with a session that is to miss nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from services.infra import render
from tests.kit import fleet
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.fleet_client import Client
from tests.kit.mqtt_witness import Witness
from tests.kit.nats_cluster import Cluster
from tests.kit.procs import Service
from tests.kit.publisher_rig import mqtt_config

WITNESS = "telegraf-1-dados"
TURN_S = 0.02


def write_boxes(folder: Path, boxes: int, tenants: int) -> Path:
    """``boxes`` configurations with one PLC for each of ``tenants``."""
    for box in _boxes(boxes):
        names = _tenants(tenants)
        fields = [{"name": "n", "address": "DB1.DBD0:DINT"}]
        plcs = [
            {
                "id": _plc(box, tenant),
                "locatario": tenant,
                "host": "192.168.0.10",
                "groups": [{"name": "dados", "fields": fields}],
            }
            for tenant in names
        ]
        accounts = {t: {"username": f"edge-{box}-{t}"} for t in names}
        output = {"name": "central", "type": "mqtt", "host": "broker", "accounts": accounts}
        config = {"site": box, "locatario": names[0], "plcs": plcs, "outputs": [output]}
        (folder / box).mkdir(parents=True)
        (folder / box / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def files(boxes: int, tenants: int, nodes: Sequence[str]) -> render.Files:
    """What `infra render --broker nats` writes for them."""
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as folder:
        written = write_boxes(Path(folder), boxes, tenants)
        return render.render(fleet.load(written, nodes=nodes))


def _boxes(count: int) -> list[str]:
    return [f"caixa-{n + 1}" for n in range(count)]


def _tenants(count: int) -> list[str]:
    return [f"t{n + 1:02d}" for n in range(count)]


def _plc(box: str, tenant: str) -> str:
    return f"{box}-{tenant}"


class Box:
    """One publisher process and its store's side."""

    def __init__(self, cluster: Cluster, number: int, tenants: int, window: int) -> None:
        self.name = _boxes(number + 1)[number]
        self.plcs = {_plc(self.name, tenant): tenant for tenant in _tenants(tenants)}
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.peer = DispatchPeer(self.folder, "central")
        # Boxes begin at different nodes; else the first would carry all of them.
        turn = number % len(cluster.hosts)
        accounts = {
            tenant: {
                "username": (account := f"edge-{self.name}-{tenant}"),
                "password": {"file": str(cluster.password_file(account))},
            }
            for tenant in self.plcs.values()
        }
        plcs = [
            {"id": plc, "locatario": tenant, "host": "192.168.0.10", "heartbeat_s": 10.0}
            for plc, tenant in self.plcs.items()
        ]
        config = mqtt_config(
            self.folder, cluster.port, plcs,
            hosts=[*cluster.hosts[turn:], *cluster.hosts[:turn]], version="3.1.1", window=window,
            tls={"ca": str(cluster.pki / "ca.pem"), "cert": None, "key": None}, accounts=accounts,
        )  # fmt: skip
        self.service = Service({**config, "site": self.name, "locatario": _tenants(1)[0]})

    def close(self) -> None:
        """Ends both."""
        self.service.end()
        self.peer.close()


class Plant:
    """All of it. ``rate``: messages a second, over all boxes, from ``feed`` on."""

    def __init__(
        self, cluster: Cluster, *, boxes: int, tenants: int, rate: float, window: int = 1_000
    ) -> None:
        self.cluster = cluster
        self._size = boxes, tenants
        self._rate = rate
        self._window = window
        self._stack = contextlib.ExitStack()
        self.boxes: list[Box] = []
        self._feeding = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self) -> Self:
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            self.witness = self._stack.enter_context(
                Witness(
                    folder,
                    hosts=self.cluster.hosts,
                    port=self.cluster.port,
                    ca=self.cluster.pki / "ca.pem",
                    user=WITNESS,
                    password=self.cluster.password_file(WITNESS),
                    topics=["plc/+/+"],
                )
            )
            boxes, tenants = self._size
            for number in range(boxes):
                box = Box(self.cluster, number, tenants, self._window)
                self._stack.callback(box.close)
                self.boxes.append(box)
            for box in self.boxes:
                box.service.wait_ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def feed(self) -> None:
        """From now on at the rate."""
        self._feeding.set()
        self._feeder.start()

    def _feed(self) -> None:
        """A row of each PLC in turn."""
        places = [(box.peer, plc, t) for box in self.boxes for plc, t in box.plcs.items()]
        begin_s, given = time.monotonic(), 0
        while self._feeding.is_set():
            time.sleep(TURN_S)
            due = int((time.monotonic() - begin_s) * self._rate)
            for n in range(given, due):
                peer, plc, tenant = places[n % len(places)]
                peer.add(1, plc, tenant)
            given = due

    def drain(self, timeout_s: float) -> None:
        """No more rows; returns when all are settled."""
        self._feeding.clear()
        self._feeder.join(5)
        for box in self.boxes:
            box.peer.wait_done(timeout_s)

    def states(self, host: str) -> dict[str, bytes]:
        """What ``host`` keeps of the boxes' state, as a new subscriber of it is told."""
        account = "telegraf-2-edge"
        client = Client(
            self.cluster.port, host=host, ca=self.cluster.pki / "ca.pem", user=account,
            password=self.cluster.password(account), version=4,
        )  # fmt: skip
        with client:
            if not client.connected:
                return {}
            try:
                client.subscribe("edge/+/+/status")
            except AssertionError:  # no answer yet
                return {}
            deadline_s = time.monotonic() + 1.0
            while len(client.messages) < len(self.states_due) and time.monotonic() < deadline_s:
                time.sleep(0.02)
            return dict(client.messages)

    @property
    def states_due(self) -> set[str]:
        """The topics of all boxes' states."""
        return {f"edge/{t}/{box.name}/status" for box in self.boxes for t in box.plcs.values()}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._feeding.clear()
        self._stack.close()
