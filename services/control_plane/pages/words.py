"""What the pages say, in English and Portuguese: ``words.json``, and how numbers are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "pt")
TAGS = {"en": "en", "pt": "pt-BR"}


@cache
def all_words() -> dict[str, dict[str, str]]:
    """key -> language -> text."""
    found: dict[str, dict[str, str]] = json.loads(
        (Path(__file__).parent / "words.json").read_text(encoding="utf-8")
    )
    return found


@dataclass(frozen=True, slots=True)
class Words:
    """One language."""

    language: str

    def __call__(self, key: str, **values: Any) -> str:
        """The text of ``key``. Raises KeyError where there is none."""
        return all_words()[key][self.language].format(**values)

    def has(self, key: str) -> bool:
        """Whether there is a text of this name."""
        return key in all_words()

    def state(self, state: str) -> str:
        """The word for a state of the API; one that is new there is shown as it is."""
        key = f"state_{state}"
        return self(key) if key in all_words() else state.replace("_", " ")

    def number(self, value: float) -> str:
        """With its thousands set apart."""
        text = f"{value:,}"
        return text.replace(",", ".") if self.language == "pt" else text

    @property
    def tag(self) -> str:
        """As HTML's ``lang`` has it."""
        return TAGS[self.language]
