"""Models that can be judged when they are only half known.

Each key is judged by itself, by pydantic; what is wrong between keys is said by a model's rules.
So that one mistake hides no other, rules are also asked of a model in which something is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

Rule = TypeVar("Rule", bound=Callable[[Any], str | None])


class Unknown(AttributeError):
    """A key was asked for whose value is wrong itself: whatever follows from it is not known."""


def rule(method: Rule) -> Rule:
    """Marks a model's method that says what is wrong between its keys; None where nothing is."""
    method.is_rule = True  # type: ignore[attr-defined]
    return method


class Judged:
    """What a pydantic model needs for it."""

    def broken_rules(self) -> Iterator[str]:
        """What is wrong between its keys, as far as they are known."""
        names = [n for base in type(self).__mro__ if issubclass(base, Judged) for n in vars(base)]
        for name in dict.fromkeys(reversed(names)):
            check: Any = getattr(type(self), name, None)
            with suppress(Unknown):
                if getattr(check, "is_rule", False) and (message := check(self)) is not None:
                    yield message

    if not TYPE_CHECKING:  # else every attribute would be taken to exist

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise Unknown(name)
            return super().__getattr__(name)
