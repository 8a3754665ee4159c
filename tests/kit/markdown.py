"""What a test needs of a Markdown page: fenced blocks with their markers, code spans, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.kit.common import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SHELL = ("sh", "bash", "shell", "console")

_FENCE = re.compile(r"^( *)```(\S*) *$")
_MARKER = re.compile(r"^ *<!-- (.+?) -->$")
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is where its text begins, ``marker`` the comment above it."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """The commands of a shell block: lines joined, comments and output left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found = (re.sub(r"(^|\s)#( .*|$)", "", line).strip() for line in lines)
        return [command for command in found if command]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if not fence:
            at += 1
            continue
        indent, language = len(fence[1]), fence[2]
        end = at + 1
        while lines[end].strip() != "```":
            end += 1
        marker = _MARKER.match(lines[at - 1]) if at else None
        text = "\n".join(line[indent:] for line in lines[at + 1 : end]) + "\n"
        found.append(Block(page, at + 2, language, marker[1] if marker else "", text))
        at = end + 1
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """`code` in running text, in one line each."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(page))]


def links(page: Path) -> list[str]:
    """Targets of links that are no web address."""
    targets = _LINK.findall(prose(page))
    return [t for t in targets if not re.match(r"[a-z]+:", t)]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    found = set()
    for line in prose(page).splitlines():
        if heading := _HEADING.match(line):
            text = re.sub(r"[^\w\- ]", "", heading[1].lower())
            found.add(text.strip().replace(" ", "-"))
    return found
