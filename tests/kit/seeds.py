"""The same case over and over, each with another seed; the first broken promise names its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable


def each(
    one: Callable[[int, Counter[str]], object],
    seeds: Iterable[int],
    enough: Callable[[Counter[str]], bool] = lambda tell: False,
) -> Counter[str]:
    """``one(seed, tell)`` for the seeds, in order, until it is ``enough``; what was told."""
    tell: Counter[str] = Counter()
    for seed in seeds:
        if enough(tell):
            break
        try:
            one(seed, tell)
        except Exception as e:
            raise AssertionError(f"seed {seed}: {e!r}") from e
    return tell
