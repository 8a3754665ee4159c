"""Who takes rows from the store: each gets a cursor and a dispatch endpoint of its own there, and a
row in ``status``, panel and metrics (where a consumer is called an output, CONTRACT §6 and §7).
"""

from __future__ import annotations

from typing import Any

from bus.topology import PROCESSES, process_name
from services.runtime.config import Config

ALERTS, HISTORIAN = process_name("alerts"), process_name("historian")


def consumers(config: Config) -> list[dict[str, Any]]:
    """Those that the configuration asks for, outputs first. A process that consumes adds its row
    here, with ``strict``: it needs its rows in order also where outputs replay beside live rows.
    """
    outputs = [
        {
            "name": o.name,
            "process": process_name("publisher", o.name),
            "type": o.type,
            "locatarios": o.locatarios,
            "from": o.start,
            "strict": False,
        }
        for o in config.outputs
    ]
    wanted = {ALERTS: config.alerts.needed, HISTORIAN: config.history is not None}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        own = {"name": name, "process": name, "type": name, "locatarios": None}
        outputs.append({**own, "from": "now", "strict": True})
    return outputs


def reserved() -> set[str]:
    """Names that no output may have: those of processes that consume themselves."""
    return {p.prefix for p in PROCESSES.values() if p.consumes and not p.per}
