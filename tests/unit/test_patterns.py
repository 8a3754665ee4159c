"""Names with ``*``."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.patterns import matches


@given(st.text("ab*.\n", max_size=7), st.text("ab.\n*", max_size=9))
def test_a_star_is_any_run_of_characters(pattern: str, text: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.timeout(30)
def test_no_pattern_takes_long() -> None:
    began_s = time.process_time()
    assert not matches("*" + "a*" * 1_000 + "b", "a" * 10_000)
    assert not matches("*aab*" * 100 + "c", "a" * 10_000)
    assert time.process_time() - began_s < 1
