"""Secrets are carried as references and read where they are used, so that no rendered file,
process list, log line or error message can hold one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.runtime.errors import ConfigError, Problem


def resolve(reference: Mapping[str, Any]) -> str:
    """The secret behind ``{"file": path}`` or ``{"env": NAME}``.

    A file's trailing newline does not count. Raises ConfigError (without the value) when the
    file cannot be read or the variable is not set.
    """
    if path := reference.get("file"):
        try:
            return Path(str(path)).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
            raise ConfigError(
                [
                    Problem(
                        str(path),
                        "",
                        f"secret file cannot be read: {reason}",
                        hint="create it, readable by the user that runs plc-edge (chmod 640)",
                    )
                ]
            ) from None
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
