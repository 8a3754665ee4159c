"""Names with ``*``, as alert rules use them."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` is what the pattern says; ``*`` stands for any run of characters."""
    if "*" not in pattern:
        return pattern == text
    return pattern == "*" or _compiled(pattern).fullmatch(text) is not None
