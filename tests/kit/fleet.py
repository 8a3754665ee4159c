"""Two boxes that serve the same two tenants: the configurations of the infrastructure's tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def load(folder: Path, *, control_plane: bool = False, nodes: Iterable[str] = ()) -> Fleet:
    """The boxes under ``folder``, joined."""
    files = sorted(folder.glob("*/config.yaml"))
    sites = (loader.load(f, check_secrets=False) for f in files)
    return model.fleet(sites, control_plane=control_plane, nodes=nodes)


def rendered(
    folder: Path,
    *,
    control_plane: bool = False,
    broker: Mapping[str, Any] | None = None,
    nodes: Iterable[str] = (),
) -> render.Files:
    """All files of the two boxes."""
    boxes = write_boxes(folder, broker)
    return render.render(load(boxes, control_plane=control_plane, nodes=nodes))


# --- who may do what, by topic: what every broker's test asks for --------------------------------


def topics() -> list[str]:
    """All that anybody may write, and what nobody may."""
    found = []
    for box in BOXES:
        for tenant in TENANTS:
            found += sorted(own(box, tenant))
    found += [f"alertas/{tenant}/mudo/planta-sp" for tenant in TENANTS]
    # A PLC of nobody, another tenant, other trees.
    strange = ["plc/acme/outro", "plc/gama/prensa-01", "plc/acme", "edge/acme", "alertas", "x"]
    return [*found, *strange, "alertas/gama/mudo/planta-sp"]


def own(box: str, tenant: str) -> set[str]:
    """Of one box, for one tenant."""
    base = f"plc/{tenant}/{PLCS[box][tenant]}"
    return {base, f"{base}/heartbeat", f"{base}/gap", f"edge/{tenant}/{box}/status"}


WRITERS = {f"edge-{box}-{tenant}": own(box, tenant) for box in BOXES for tenant in TENANTS}
WRITERS |= {f"alerts-{box}-{t}": {f"alertas/{t}/mudo/planta-sp"} for box in BOXES for t in TENANTS}
WRITERS |= {f"doctor-{box}": own(box, "acme") | own(box, "beta") for box in BOXES}
WRITTEN = set().union(*WRITERS.values())
ALERTS = {t for t in WRITTEN if t.startswith("alertas/")}


def _data(tail: str) -> set[str]:
    return {t for t in WRITTEN if t.startswith("plc/") and t.endswith(tail)}


_HEARTBEATS, _GAPS = _data("/heartbeat"), _data("/gap")
_EDGE = {t for t in WRITTEN if t.startswith("edge/")}
READERS: dict[str, set[str]] = {
    "saude": set(),
    **{f"leitor-{t}": {x for x in WRITTEN if x.split("/")[1] == t} for t in TENANTS},
}
for _n in (1, 2):
    READERS[f"telegraf-{_n}-dados"] = WRITTEN - _HEARTBEATS - _GAPS - _EDGE - ALERTS
    READERS[f"telegraf-{_n}-sinais"] = _HEARTBEATS | _GAPS
    READERS[f"telegraf-{_n}-edge"] = _EDGE
