"""Data that ships with the program: supervisord.conf, layouts, templates.

In a checkout they lie where people read them; the wheel puts them under
``<prefix>/share/plc-edge`` (pyproject, ``data-files``).
"""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = Path(sys.prefix) / "share" / "plc-edge"
# Shipped name -> place in a checkout.
_CHECKOUT = {
    name: f"deploy/{name}"
    for name in (
        "layouts",
        "scripts",
        "config.example.yaml",
        "central.example.yaml",
        "supervisord-central.conf",
    )
}


def path(name: str) -> Path:
    """Where ``name`` lies, e.g. ``supervisord.conf``, ``layouts/db500.yaml``.

    Raises FileNotFoundError when the installation is incomplete.
    """
    first, _, rest = name.partition("/")
    checkout = _ROOT / _CHECKOUT.get(first, first) / rest
    for candidate in (checkout, _INSTALLED / name):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{name} is missing from this installation ({_INSTALLED})")
