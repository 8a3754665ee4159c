"""Names with ``*``, as alert rules use them."""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` is what the pattern says; ``*`` stands for any run of characters.

    Patterns and names come from outside, so no regular expression: one of many ``*`` takes years.
    Each part is taken where it is found first, which leaves the most for those behind it.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == text
    last = parts.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in parts:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
