"""What the report of a shift says to people."""

from __future__ import annotations

from typing import Any

import pytest

from services.oee.core.figures import PARTS
from services.oee.report import report
from tests.unit.oee.kit import MIN, at

BEGIN = at("22:00")
STOP = BEGIN + 150 * MIN
NONE = dict.fromkeys(("availability", "performance", "quality", "oee"))
PIECES = dict.fromkeys(("good", "bad", "total"))
MACHINE: dict[str, Any] = {
    "name": "prensa",
    **NONE,
    "pieces": PIECES,
    "pieces_unseen": PIECES,
    "pieces_at_rest": PIECES,
    "parts_ms": dict.fromkeys(PARTS, 0),
    "short_stops": {"count": 0, "ms": 0},
    "reasons_ms": {"": 5 * MIN},
    "words": {},
    "planned": [],
    "stops": [
        {
            "begin_ms": STOP, "end_ms": STOP + 5 * MIN, "stopped_ms": 5 * MIN,
            "began": "seen", "ended": "seen", "reasons": [{"code": "", "ms": 5 * MIN}],
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", ["pt", "en"])
def test_one_way_to_write_a_date(language: str) -> None:
    """A stop after midnight is dated as the shift is."""
    ends = {"begin_ms": BEGIN, "end_ms": BEGIN + 480 * MIN, "until_ms": BEGIN + 480 * MIN}
    answer = {
        "timezone": "America/Sao_Paulo", **ends, "shifts": [], "machines": [MACHINE],
        "total": MACHINE,
    }  # fmt: skip
    text = report(answer, language).text
    (period,) = (line for line in text.splitlines() if "America/Sao_Paulo" in line)
    day = period.split()[3]
    assert f"{day} 00:30:00" in text
    assert f"{day} 00:35:00" in text
