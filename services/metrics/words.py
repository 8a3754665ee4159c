"""The words for what can be wrong: one file, ``static/words.json``, for page and terminal alike."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"


@cache
def _words() -> dict[str, Any]:
    words: dict[str, Any] = json.loads((STATIC / "words.json").read_text(encoding="utf-8"))
    return words


def problem(code: str, params: dict[str, Any], fallback: str = "") -> tuple[str, str]:
    """(what is wrong, what to check), English. An unknown code says its ``fallback``."""
    entry = _words()["problems"].get(code)
    if entry is None:
        return fallback or code.replace("_", " "), ""
    what, check = entry["en"]
    return _fill(what, params), _fill(check, params)


def _fill(text: str, params: dict[str, Any]) -> str:
    for name, value in params.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def has_problem(code: str) -> bool:
    """Whether there are words of its own for this code."""
    return code in _words()["problems"]
