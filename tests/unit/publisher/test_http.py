"""What is read from HTTP answers."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from services.publisher.outputs.http import _retry_after


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("3", 3.0), ("-1", 0.0), ("0.5", 0.5), ("soon", None)]
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = _retry_after(formatdate(time.time() + 20, usegmt=True))
    assert seconds is not None
    assert 17 < seconds <= 20
