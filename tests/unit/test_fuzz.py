"""A few hundred spoiled inputs; ``python -m tests.fuzz`` runs as many as one likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.run import Fuzzer

INPUTS = 75


@pytest.mark.parametrize("seed", range(4))
def test_no_input_brings_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name in [n for n in os.environ if n.startswith("PLC_EDGE")]:
        monkeypatch.delenv(name)
    fuzzer = Fuzzer(tmp_path, seed)
    outcomes = [fuzzer.run(number) for number in range(INPUTS)]
    assert [o.fault for o in outcomes if o.fault] == []
    assert {o.code for o in outcomes} == {0, 2}
    assert {o.kind for o in outcomes} == {"config", "layout", "source"}
