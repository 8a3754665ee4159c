"""Two boxes that serve the same two tenants: the configurations of the infrastructure's tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from services.infra import model, render
from services.infra.model import Fleet
from services.runtime import loader

TENANTS = ("acme", "beta")
BOXES = ("planta-sp", "planta-rj")
# Box -> tenant -> its PLC.
PLCS = {
    "planta-sp": {"acme": "prensa-01", "beta": "forno-02"},
    "planta-rj": {"acme": "prensa-11", "beta": "forno-12"},
}


def write_boxes(folder: Path, broker: Mapping[str, Any] | None = None) -> Path:
    """``<folder>/<box>/config.yaml`` of every box, with that ``infra.broker``; ``folder``."""
    for box in BOXES:
        (folder / box).mkdir(parents=True)
        plcs = [
            {
                "id": plc,
                "locatario": tenant,
                "host": "192.168.0.10",
                "groups": [
                    {
                        "name": "dados",
                        "fields": [
                            {"name": "ciclos", "address": "DB1.DBD0:DINT"},
                            {"name": "rodando", "address": "DB1.DBX4.0"},
                        ],
                    }
                ],
            }
            for tenant, plc in PLCS[box].items()
        ]
        accounts = {t: {"username": f"edge-{box}-{t}"} for t in TENANTS}
        output = {"name": "central", "type": "mqtt", "host": "broker", "accounts": accounts}
        config = {
            "site": box,
            "locatario": "acme",
            "plcs": plcs,
            "outputs": [output],
            "infra": {"plan": {"acme": "pro", "beta": "free"}, "broker": dict(broker or {})},
            "store": {"max_age": "3d"},
            "alerts": {
                "rules": [{"name": "mudo", "type": "absence", "for": "1m"}],
                "receivers": [
                    {
                        "name": "painel",
                        "type": "mqtt",
                        "output": "central",
                        "per_site": True,
                        "accounts": {t: {"username": f"alerts-{box}-{t}"} for t in TENANTS},
                    }
                ],
            },
        }
        (folder / box / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def load(folder: Path, *, control_plane: bool = False) -> Fleet:
    """The boxes under ``folder``, joined."""
    files = sorted(folder.glob("*/config.yaml"))
    sites = (loader.load(f, check_secrets=False) for f in files)
    return model.fleet(sites, control_plane=control_plane)


def rendered(
    folder: Path, *, control_plane: bool = False, broker: Mapping[str, Any] | None = None
) -> render.Files:
    """All files of the two boxes."""
    return render.render(load(write_boxes(folder, broker), control_plane=control_plane))
