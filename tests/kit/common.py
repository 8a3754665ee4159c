"""What every part of the kit needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import urllib3

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def until(what: Callable[[], T | None], timeout_s: float, why: Callable[[], str] | str) -> T:
    """Polls until ``what()`` is true; its value. Fails with ``why`` after ``timeout_s``. Nobody who
    answers, no such file: that is "not yet" too.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        last = ""
        try:
            if value := what():
                return value
        except (OSError, urllib3.exceptions.HTTPError) as e:
            last = f" ({e!r})"
        if time.monotonic() > deadline_s:
            text = why() if callable(why) else why
            raise AssertionError(f"not within {timeout_s} s: {text}{last}")
        time.sleep(0.02)
