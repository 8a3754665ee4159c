"""YAML into plain data, remembering on which line each key stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from services.runtime.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]
# A plant's file is some kB; this bounds what an alias bomb or a wrong file can cost.
MAX_BYTES = 4 * 2**20


def load(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """(data, line of each key path) of a YAML file.

    Raises ConfigError for what cannot be read, is not UTF-8, is not YAML, uses a tab or names a
    key twice; each with its line and the fix.
    """
    name = str(path)
    try:
        raw = path.read_bytes()
    except OSError as e:
        hint = "give the file with --config, or create it (deploy/config.example.yaml)"
        raise ConfigError([Problem(name, "", f"cannot be read: {e.strerror}", hint=hint)]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(name, "", f"has {len(raw)} bytes, more than {MAX_BYTES}")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        message = f"byte 0x{raw[e.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8 (Notepad: Save as, Encoding)"
        raise ConfigError([Problem(name, "", message, line, hint)]) from None
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        lines: dict[KeyPath, int] = {}
        problems: list[Problem] = []
        _walk(node, (), lines, problems, name, 0)
        if problems:
            raise ConfigError(problems)
        return yaml.load(text, Loader=yaml.CSafeLoader), lines
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        at = mark.line + 1 if mark else None
        message = f"not YAML: {e.problem or e.context}"
        hint = "check indentation, colons and quotes near this line"
        if at and "\t" in text.splitlines()[at - 1 : at][0].split("#")[0]:
            hint = "use spaces instead of the tab"
        raise ConfigError([Problem(name, "", message, at, hint)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError([Problem(name, "", f"not YAML: {e}")]) from None


def _walk(
    node: yaml.Node | None,
    path: KeyPath,
    lines: dict[KeyPath, int],
    problems: list[Problem],
    name: str,
    depth: int,
) -> None:
    if node is None:
        return
    if depth > 50:
        raise yaml.YAMLError("nested more than 50 deep")
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            text = str(key.value)
            if text in seen and text != "<<":
                line = key.start_mark.line + 1
                where = dotted((*path, text))
                problems.append(Problem(name, where, "stands twice", line, "keep one of them"))
            seen.add(text)
            lines[(*path, text)] = key.start_mark.line + 1
            _walk(value, (*path, text), lines, problems, name, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*path, i), lines, problems, name, depth + 1)


def dotted(path: KeyPath) -> str:
    """``("plcs", 0, "host")`` as ``plcs[0].host``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a key, or of the nearest thing above it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)
