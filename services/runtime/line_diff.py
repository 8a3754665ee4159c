"""A unified diff whose cost and size are bounded, whatever the texts are.

``difflib`` costs up to the cube of the lines. So it only sees what lies between the common first
and last lines; and where that is long, all of it is shown as taken out and put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import takewhile

# Lines that difflib sees in one diff, of all files and both sides: 0.2 s at worst.
MAX_COMPARED = 800
CONTEXT = 3
LEFT_OUT = "… (the rest is left out)"

Lines = Sequence[str]
Opcode = tuple[str, int, int, int, int]


def unified(
    old: Mapping[str, Lines], new: Mapping[str, Lines], old_label: str, new_label: str
) -> Iterator[str]:
    """The diff's lines, of files by their name. Each ends as it does in the files."""
    left = MAX_COMPARED
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, ()), new.get(name, ())
        if before == after:
            continue
        yield f"--- {name} ({old_label})"
        yield f"+++ {name} ({new_label})"
        # Without the common ends, but for what is shown of them.
        head = _common(before, after)
        size = min(len(before), len(after)) - head
        tail = _common(before[: -size - 1 : -1], after[: -size - 1 : -1]) if size else 0
        first, rest = max(0, head - CONTEXT), max(0, tail - CONTEXT)
        a, b = before[first : len(before) - rest], after[first : len(after) - rest]
        fits = len(a) + len(b) <= left
        left -= len(a) + len(b) if fits else 0
        for group in _compared(a, b) if fits else _replaced(a, b, head - first, tail - rest):
            yield from _hunk(group, a, b, first)


def cut(text: str, max_bytes: int) -> str:
    """At most so many bytes of UTF-8, and a word at its end where that is not all."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    last = f"\n{LEFT_OUT}"
    return data[: max_bytes - len(last.encode())].decode("utf-8", "ignore") + last


def _common(a: Lines, b: Lines) -> int:
    """How many of the first lines are the same."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)))


def _compared(a: Lines, b: Lines) -> Iterable[list[Opcode]]:
    return SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(CONTEXT)


def _replaced(a: Lines, b: Lines, head: int, tail: int) -> Iterator[list[Opcode]]:
    old_end, new_end = len(a) - tail, len(b) - tail
    yield [
        ("equal", 0, head, 0, head),
        ("replace", head, old_end, head, new_end),
        ("equal", old_end, len(a), new_end, len(b)),
    ]


def _hunk(group: list[Opcode], a: Lines, b: Lines, first: int) -> Iterator[str]:
    old = _range(first + group[0][1], first + group[-1][2])
    new = _range(first + group[0][3], first + group[-1][4])
    yield f"@@ -{old} +{new} @@"
    for kind, a_from, a_to, b_from, b_to in group:
        if kind == "equal":
            yield from (f" {line}" for line in a[a_from:a_to])
        else:
            yield from (f"-{line}" for line in a[a_from:a_to])
            yield from (f"+{line}" for line in b[b_from:b_to])


def _range(start: int, end: int) -> str:
    """As GNU diff writes it: of an empty one the line before."""
    count = end - start
    return f"{start + 1}" if count == 1 else f"{start + bool(count)},{count}"
