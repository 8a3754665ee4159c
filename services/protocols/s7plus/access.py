"""What opens a CPU, with its secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.runtime import secrets


def access(plc: Mapping[str, Any]) -> dict[str, Any]:
    """``Cpu``'s ``config`` from a rendered PLC. Raises ConfigError where its password cannot be
    read.
    """
    found = {key: plc[key] for key in ("tls", "ca", "fingerprint", "username")}
    if plc["password"] is not None:
        found["password"] = secrets.resolve(plc["password"])
    return found
