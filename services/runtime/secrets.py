"""Secrets are carried as references and read where they are used, so that no rendered file,
process list, log line or error message can hold one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.runtime import files
from services.runtime.errors import ConfigError, Problem

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def reference_of(holder: object, name: str, base: Path) -> dict[str, str] | None:
    """``{"file": …}`` or ``{"env": …}`` of a model's secret; None where it is absent or in clear.

    A file is looked up beside ``base``.
    """
    file: Path | None = getattr(holder, f"{name}_file", None)
    if file is not None:
        return {"file": str((base / file).absolute())}
    if match := _VARIABLE.fullmatch(getattr(holder, name, None) or ""):
        return {"env": match[1]}
    return None


def resolve(reference: Mapping[str, Any]) -> str:
    """The secret behind ``{"file": path}`` or ``{"env": NAME}``.

    A file's trailing newline does not count. Raises ConfigError (without the value) when the
    file cannot be read or the variable is not set.
    """
    if path := reference.get("file"):
        try:
            content = files.read(Path(str(path)), files.SECRET_MAX_BYTES)
            return content.decode().rstrip("\r\n")
        except (files.Unreadable, UnicodeDecodeError) as e:
            reason = str(e) if isinstance(e, files.Unreadable) else "is no UTF-8 text"
            hint = "create it, readable by the user that runs plc-edge (chmod 640)"
            problem = Problem(str(path), "", f"secret file cannot be read: it {reason}", hint=hint)
            raise ConfigError([problem]) from None
    name = str(reference.get("env", ""))
    if name in os.environ:
        return os.environ[name]
    raise ConfigError(
        [
            Problem(
                "environment",
                name,
                "variable is not set",
                hint=f"set {name} in the environment of plc-edge",
            )
        ]
    )


def fingerprint(reference: Mapping[str, Any]) -> str:
    """A digest that changes with the secret, for the configuration's hash; "" if unreadable."""
    try:
        return hashlib.sha256(b"plc-edge\0" + resolve(reference).encode()).hexdigest()
    except ConfigError:
        return ""
