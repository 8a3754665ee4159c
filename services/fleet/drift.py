"""What was changed at the box, for people at the centre: without a secret in it."""

from __future__ import annotations

import re

from services.fleet.files import Texts
from services.runtime import line_diff

MAX_BYTES = 64 * 2**10
# Of a text that is looked at line by line.
MAX_COMPARED = 2**20
HIDDEN = "***"
# Keys whose value nobody but this box may see; a reference to one is none.
_WORDS = r"password|passphrase|token|secret|authorization|api[_-]?key|cookie"
_WORD = re.compile(rf"(?i){_WORDS}")
# What may follow the word up to its value. (Bounded: so a line of a million letters costs ms.)
_REST = re.compile(r"[\w.-]{0,64}[\"']?\s{0,64}:\s*")
_BEFORE = re.compile(r"[\w.-]{0,64}$")
# Between braces a value ends at a comma; elsewhere it goes on to the end of the line.
_IN_BRACES = re.compile(
    r"""\$\{\w+\} | "(?:[^"\\]|\\.)*"? | '(?:[^']|'')*'? | [^,}]*""", re.VERBOSE
)
_PLAIN = re.compile(r".*")
# Secrets that stand under another key, by an alias: `password: *name`.
_ALIASED = re.compile(rf"(?i)(?:{_WORDS})[\w.-]{{0,64}}[\"']?\s*:\s*\*([^\s,}}]+)")
_REFERENCE = re.compile(r"\s*[\"']?\$\{\w+\}[\"']?\s*(#.*)?")
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
        shown, begins = _hide(line, indent)
        if line.strip():
            hidden_from = begins
        lines.append(_IN_URL.sub(rf"\1{HIDDEN}@", shown))
    return "\n".join(lines)


def _hide(line: str, indent: int) -> tuple[str, int]:
    """The line without its secrets, and the column whose deeper lines go on with one; -1: none."""
    shown, at, begins = "", 0, -1
    for word in _WORD.finditer(line):
        rest = _REST.match(line, word.end())
        if word.start() < at or rest is None:  # inside a secret, or no key
            continue
        before = _BEFORE.search(line, max(0, word.start() - 64), word.start())
        first = before.start() if before else word.start()
        in_braces = line.find("{", 0, first) >= 0
        value = (_IN_BRACES if in_braces else _PLAIN).match(line, rest.end())
        key = line[first : rest.end()].rstrip(": \t\"'")
        if value is None or key.lower().endswith("_file") or _REFERENCE.fullmatch(value[0]):
            continue
        shown += line[at : rest.end()] + HIDDEN
        at = value.end()
        begins = indent if in_braces else first
    return shown + line[at:], begins


def diff(given: Texts, local: Texts, config_name: str, version: str) -> str:
    """A unified diff from what was applied last to what stands there now, at most 64 KiB."""
    old = {config_name: given.yaml, **given.layouts}
    new = {config_name: local.yaml, **local.layouts}
    lines: list[str] = []
    if sum(map(len, (*old.values(), *new.values()))) > MAX_COMPARED:
        names = [n for n in {**old, **new} if old.get(n) != new.get(n)]
        lines.append(f"too large to be compared line by line: {', '.join(names)}"[:MAX_BYTES])
        old = new = {}
    before, after = (
        {name: redact(text).splitlines() for name, text in texts.items()} for texts in (old, new)
    )
    lines += [
        f"{name}: differs in a secret, or in its line ends"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name) and before.get(name, []) == after.get(name, [])
    ]
    lines += line_diff.unified(before, after, version, "at the box")
    return line_diff.cut("\n".join(lines), MAX_BYTES)
