"""A YAML file as it was read, and how a mistake in it is told: with its line, or its variable."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from services.runtime.errors import Problem

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """``("plcs", 0, "host")`` as ``plcs[0].host``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def undotted(text: str) -> KeyPath:
    """``fields[3].type`` as ``("fields", 3, "type")``."""
    return tuple(int(i) if i else k for k, i in re.findall(r"([^.\[\]]+)|\[(\d+)\]", text) or ())


@dataclass(slots=True)
class Document:
    """The data of a YAML file, the lines of its keys, and what is wrong in single values."""

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """What was found while reading; whatever it does not touch holds."""
    doubtful: set[KeyPath] = field(default_factory=set)
    """Keys whose value is not known for that."""
    variables: dict[KeyPath, str] = field(default_factory=dict)
    """The environment variables that set a key, by key."""

    def doubts(self, path: KeyPath) -> bool:
        """Whether the value there is not known."""
        return any(path[:n] in self.doubtful for n in range(len(path) + 1))

    def problem(self, path: KeyPath, message: str, hint: str = "") -> Problem:
        """A mistake at a key: on its line, or the line of the nearest thing above; one that a
        variable has made names the variable.
        """
        stands = next((n for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)
        key = dotted(path)
        in_file = Problem(self.file, key, message, self.lines.get(path[:stands]), hint)
        above = [at for at in self.variables if path[: len(at)] == at]
        if above:
            at = max(above, key=len)
            said = message if at == path else f"`{key}`: {message}"
            return Problem("environment", self.variables[at], said, hint=hint)
        # A variable also makes the keys above its own, and may spoil what stands beside it.
        reach = path[: stands + 1]
        inside = [v for at, v in self.variables.items() if at[: len(reach)] == reach]
        if not inside or not path:
            return in_file
        names = ", ".join(inside)
        if stands < len(path):
            return Problem("environment", names, f"`{key}`: {message}", hint=hint)
        return replace(in_file, message=f"{message} (with {names} from the environment)")
