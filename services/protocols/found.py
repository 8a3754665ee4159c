"""What a browse of a PLC finds, of any protocol, and the layout of it.

``services/protocols/<protocol>/browse.py`` has ``find(config, host, path) -> list[Found]``:
everything under ``path``, in the PLC's order. ``config`` is a reader's, as rendered. It raises
PlcUnavailable, or PlcEdgeError where there is no such place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NO_NAME = re.compile(r"[^\w.\-]+")


@dataclass(slots=True)
class Found:
    """One value that can be read."""

    path: str
    """Names from the start on, joined by dots; a structure's members are part of it."""
    tag: dict[str, str]
    """How a layout names it: the keys of the model's ``tag_keys``."""
    type: str = ""
    """As a layout writes it; empty where it cannot be in one."""
    unit: str = ""
    comment: str = ""
    why: str = ""
    """Why it cannot be in a layout."""

    def holds(self, text: str) -> bool:
        """Whether its path, tag, type, unit or comment contains ``text``, in any case."""
        texts = (self.path, *self.tag.values(), self.type, self.unit, self.comment)
        return any(text.lower() in t.lower() for t in texts)


def fields(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The layout's fields of what can be in one; each name once."""
    used: set[str] = set()
    out: list[dict[str, Any]] = []
    for one in found:
        if not one.type:
            continue
        base = _NO_NAME.sub("_", one.path).strip("._") or "value"
        name, n = base, 1
        while name in used:
            n += 1
            name = f"{base}_{n}"
        used.add(name)
        more = {"unit": one.unit, "description": " ".join(one.comment.split())}
        field = {"name": name, **one.tag, "type": one.type}
        out.append(field | {k: v for k, v in more.items() if v})
    return out
