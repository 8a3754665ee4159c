"""What was changed at the box, for people at the centre: without a secret in it."""

from __future__ import annotations

import difflib
import re

from services.fleet.files import Texts

MAX_BYTES = 64 * 2**10
HIDDEN = "***"
# Keys whose value nobody but this box may see; a reference to one is none.
_WORDS = r"password|passphrase|token|secret|authorization|api[_-]?key|cookie"
_SECRET = re.compile(
    rf"""(?ix) (?P<key> ["']? [\w.-]* (?:{_WORDS}) [\w.-]* ["']? ) (?P<colon> \s*:\s* )
    (?P<value> "(?:[^"\\]|\\.)*"? | '(?:[^']|'')*'? | [^,}}\n]* )"""
)
# Secrets that stand under another key, by an alias: `password: *name`.
_ALIASED = re.compile(rf"(?i)(?:{_WORDS})[\w.-]*[\"']?\s*:\s*\*([^\s,}}]+)")
_REFERENCE = re.compile(r"[\"']?\$\{\w+\}[\"']?\s*(#.*)?")
_FILE_KEY = re.compile(r"(?i)[\"']?[\w.-]*_file[\"']?")
_IN_URL = re.compile(r"(://)[^/\s@]+@")


def redact(text: str) -> str:
    """The same lines, with every secret in clear replaced: rather too much than too little."""
    named = "|".join(map(re.escape, _ALIASED.findall(text)))
    if named:
        text = re.sub(rf"(&(?:{named})\s).*", rf"\1{HIDDEN}", text)
    lines: list[str] = []
    hidden_from = -1
    """Deeper lines are of a value that goes on."""
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        goes_on = indent > hidden_from or (indent == hidden_from and line.lstrip().startswith("-"))
        if hidden_from >= 0 and goes_on:
            lines.append(" " * indent + HIDDEN)
            continue
        if line.strip():
            hidden_from = _end_of_hiding(line, indent)
        lines.append(_IN_URL.sub(rf"\1{HIDDEN}@", _SECRET.sub(_hide, line)))
    return "\n".join(lines)


def _end_of_hiding(line: str, indent: int) -> int:
    """The column whose deeper lines belong to a secret that begins here; -1: none does."""
    for match in _SECRET.finditer(line):
        if not _is_reference(match):
            return indent if "{" in line[: match.start()] else match.start()
    return -1


def _is_reference(match: re.Match[str]) -> bool:
    return bool(_FILE_KEY.fullmatch(match["key"]) or _REFERENCE.fullmatch(match["value"].strip()))


def _hide(match: re.Match[str]) -> str:
    return match[0] if _is_reference(match) else f"{match['key']}{match['colon']}{HIDDEN}"


def diff(given: Texts, local: Texts, config_name: str, version: str) -> str:
    """A unified diff from what was applied last to what stands there now, at most 64 KiB."""
    old = {config_name: given.yaml, **given.layouts}
    new = {config_name: local.yaml, **local.layouts}
    lines: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        before, after = (redact(t.get(name, "")).splitlines() for t in (old, new))
        if old.get(name) != new.get(name) and before == after:
            lines.append(f"{name}: differs in a secret, or in its line ends")
        lines += difflib.unified_diff(
            before, after, f"{name} ({version})", f"{name} (at the box)", lineterm=""
        )
    text = "\n".join(lines)
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_BYTES:
        return data.decode()
    return data[: MAX_BYTES - 40].decode("utf-8", "ignore") + "\n… (the rest is left out)"
