"""The two boxes of the pipeline, a tenant each: what a technician would write in config.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.cli.central_demo.broker import ADDRESS, CentralBroker
from services.runtime import assets

SCAN = "200ms"
# What groups write where nothing else is said.
MEASUREMENT = "s7_db1"


@dataclass(frozen=True, slots=True)
class Box:
    """One box with one PLC."""

    site: str
    tenant: str
    plan: str
    plc: str
    group: dict[str, Any]
    field: str
    """A number that moves."""
    raw_days: int
    """What the plan keeps of raw values."""

    @property
    def account(self) -> str:
        """At the broker."""
        return f"edge-{self.site}"

    @property
    def reader(self) -> str:
        """The tenant's account there, which only reads."""
        return f"leitor-{self.tenant}"


BOXES = (
    Box(
        "planta-sp", "acme", "pro", "prensa-01",
        {"name": "db500", "db": 500, "layout": "db500.yaml"}, "AI_Corrente", 7,
    ),
    Box(
        "planta-rj", "beta", "free", "forno-02",
        {"name": "maquinas", "db": 500, "layout": "db500_maquinas.yaml",
         "machines": {"count": 5, "stride": 66}}, "sensor.1.valor", 3,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in the folder of this run."""

    box: Box
    file: Path
    plc_port: int
    metrics_port: int

    def write(
        self, broker: CentralBroker, infra: dict[str, Any], direct: Sequence[dict[str, Any]]
    ) -> None:
        """Its config.yaml. ``infra``: where the centre is. ``direct``: outputs straight into
        the database, where nobody takes the messages from the broker to it.
        """
        box, folder = self.box, self.file.parent
        folder.mkdir(parents=True)
        mqtt = {
            "name": "central", "type": "mqtt", "host": ADDRESS, "port": broker.ports.tls,
            "tls": {"ca": str(broker.ca)}, "username": box.account, "from": "oldest",
            "password_file": str(broker.password_file(box.account)),
        }  # fmt: skip
        layout = str(assets.path(f"layouts/{box.group['layout']}"))
        group = {**box.group, "layout": layout, "scan": SCAN, "publish": "always"}
        config = {
            "site": box.site,
            "locatario": box.tenant,
            # It is a trial: on a machine without NTP, too, the values are to be looked at.
            "clock_sync": "ignored",
            "paths": {"state": str(folder / "state"), "runtime": str(folder / "run")},
            "plcs": [
                {"id": box.plc, "host": ADDRESS, "port": self.plc_port, "heartbeat": "1s",
                 "groups": [group]},
            ],
            "outputs": [mqtt, *direct],
            # What its plan keeps of raw values: `check` refuses more.
            "store": {"max_age": f"{box.raw_days}d"},
            "metrics": {"port": self.metrics_port},
            "infra": {
                **infra,
                "plan": {box.tenant: box.plan},
                "broker_host": ADDRESS,
                "broker": broker.settings(),
                "metrics_url": f"http://{ADDRESS}:{self.metrics_port}/metrics",
            },
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
