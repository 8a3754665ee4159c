"""Keys of the configuration that are set by environment: ``PLC_EDGE__METRICS__PORT=9200``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.runtime import yaml_lines
from services.runtime.document import Document, KeyPath, dotted
from services.runtime.errors import ConfigError, Problem

PREFIX = "PLC_EDGE__"


class _Refused(Exception):
    """A variable that cannot be taken."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


def override(document: Document, environ: Mapping[str, str], prefix: str = PREFIX) -> None:
    """Puts PLC_EDGE__A__B=value into the document; each variable is judged by itself.

    List items are named: PLC_EDGE__OUTPUTS__CENTRAL__HOST; a hyphen is written as `_`.
    """
    for variable in sorted(v for v in environ if v.startswith(prefix)):
        try:
            _set(document, variable, environ[variable], prefix)
        except _Refused as e:
            document.problems.append(Problem("environment", variable, str(e), hint=e.hint))


def _set(document: Document, variable: str, text: str, prefix: str) -> None:
    parts = variable.removeprefix(prefix).lower().split("__")
    if not all(parts):
        hint = f"two underscores between the keys, as in {prefix}METRICS__PORT"
        raise _Refused("names no key", hint)
    try:
        given = yaml_lines.parse(text, "environment")
        if given.problems:
            raise ConfigError(given.problems)
    except ConfigError:
        raise _Refused("is not YAML", """put quotes inside the value: NAME='"…"'""") from None
    target = document.data
    path: KeyPath = ()
    for i, part in enumerate(parts):
        key: str | int
        if isinstance(target, list):
            key = _item(target, part)
        elif isinstance(target, dict):
            key = next((k for k in target if k.lower().replace("-", "_") == part), part)
        else:
            raise _Refused(f"`{dotted(path)}` has no keys")
        path = (*path, key)
        if i == len(parts) - 1:
            target[key] = given.data
        elif isinstance(target, dict) and target.get(key) is None:
            target[key] = {}
        target = target[key]
    document.doubtful = {at for at in document.doubtful if at[: len(path)] != path}
    document.variables[path] = variable


def _item(items: list[Any], name: str) -> int:
    names = [str(i.get("name", i.get("id", ""))) if isinstance(i, dict) else "" for i in items]
    for index, candidate in enumerate(names):
        if candidate.lower().replace("-", "_") == name:
            return index
    hint = f"use one of: {', '.join(n.upper().replace('-', '_') for n in names if n)}"
    raise _Refused(f"no item named {name!r}", hint)
