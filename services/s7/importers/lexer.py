"""Tokens of SCL, STL and DB sources: names, numbers, texts, comments, pragmas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<title>(?<![^\n])[^\S\n]*TITLE[^\S\n]*=[^\n]*)   # free text, apostrophes and all
    | (?P<space>[^\S\n]+)
    | (?P<newline>\n)
    | (?P<line_comment>//[^\n]*)
    | (?P<comment>\(\*.*?\*\)|\(/\*.*?\*/\)|/\*.*?\*/)    # (/* */): TIA's multilingual comment
    | (?P<pragma>\{(?:[^{}']|'[^'\n]*')*\})
    | (?P<endless>\(\*|\(/\*|/\*)
    | (?P<quoted>"[^"\n]*")
    # $ escapes what follows, yet some end a text with a single one. Each $ can be read in one way
    # only (but where the text ends), or a line of them would take for ever.
    | (?P<string>'(?:\$\$|\$'|''|[^'$\n]|\$(?![$']))*\$?')
    | (?P<range>\.\.)
    | (?P<assign>:=|=>)
    | (?P<number>\d+\#[0-9A-Fa-f_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)
    | (?P<name>[\#%]?[^\W\d][\w\#]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: name, quoted, number, string, pragma, comment, range, assign, other or end."""

    kind: str
    text: str
    line: int

    @property
    def word(self) -> str:
        """Upper case, for keywords; empty for quoted names, which are never keywords."""
        return self.text.upper() if self.kind == "name" else ""


def tokens(text: str) -> Iterator[Token]:
    """All tokens but blanks and titles. A text that does not end comes as `other`; a comment
    too, and is the last token: it goes on to the end of the file.
    """
    line = 1
    for match in _TOKEN.finditer(text):
        kind, part = str(match.lastgroup), match[0]
        if kind == "line_comment":
            yield Token("comment", part[2:].strip(), line)
        elif kind == "comment":
            yield Token("comment", " ".join(part.strip("(*/) \t\n").split()), line)
        elif kind == "endless":
            yield Token("other", part, line)
            return
        elif kind == "quoted":
            yield Token(kind, part[1:-1], line)
        elif kind not in ("newline", "space", "title"):
            yield Token(kind, part, line)
        line += part.count("\n")
