"""Diffs with an end."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import line_diff

LINES = st.lists(st.sampled_from("abcd"), max_size=30)


def patched(old: Sequence[str], diff: Sequence[str]) -> list[str]:
    """What patch(1) makes of it; context and what is taken out must stand there."""
    made: list[str] = []
    at = 0
    for line in diff[2:]:
        if header := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line):
            start = int(header[1]) - (header[2] != "0")
            made += old[at:start]
            at = start
            assert len(made) == int(header[3]) - (header[4] != "0")
        elif line[0] == "+":
            made.append(line[1:])
        else:
            assert line[1:] == old[at]
            made += [line[1:]] if line[0] == " " else []
            at += 1
    return [*made, *old[at:]]


@given(LINES, LINES, st.sampled_from([0, 800]))
def test_it_leads_from_one_to_the_other(old: list[str], new: list[str], compared: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_diff, "MAX_COMPARED", compared)
        diff = list(line_diff.unified({"f": old}, {"f": new}, "1", "2"))
    assert bool(diff) == (old != new)
    if diff:
        assert diff[:2] == ["--- f (1)", "+++ f (2)"]
        assert patched(old, diff) == new


def test_a_change_in_a_long_file_is_shown_alone() -> None:
    old = [f"line {n}" for n in range(100_000)]
    new = [*old[:50_000], "other", *old[50_001:]]
    diff = list(line_diff.unified({"f": old}, {"f": new}, "1", "2"))
    assert [line for line in diff[3:] if line[0] != " "] == ["-line 50000", "+other"]
    assert diff[2] == "@@ -49998,7 +49998,7 @@"


def repeated(step: int, lines: int) -> list[str]:
    """Each of 110 lines again and again: what difflib is slowest with."""
    return [f"#{n * step % 110}" for n in range(lines)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("files", "lines"), [(1, 20_000), (1, 390), (100, 2_000), (100, 390)])
def test_no_texts_take_long(files: int, lines: int) -> None:
    old = {f"{n}": repeated(7, lines) for n in range(files)}
    new = {f"{n}": repeated(13, lines) for n in range(files)}
    began_s = time.process_time()
    assert sum(1 for _ in line_diff.unified(old, new, "1", "2"))
    assert time.process_time() - began_s < 2
