"""The checklist in docs/sparkplug.md: its tests exist, and what the judge asserts stands in it."""

from __future__ import annotations

import re

from tests.kit.common import ROOT

HERE = [f"tests/process/publisher/test_sparkplug{more}.py" for more in ("", "_broker")]
PAGE = (ROOT / "docs" / "sparkplug.md").read_text()
ROWS = [
    line for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9*-]+`(, `[a-z0-9*-]+`)* \|", line)
]
LISTED = {name for row in ROWS for name in re.findall(r"`([a-z0-9*-]+)`", row.split(" | ")[0])}


def test_every_test_of_the_checklist_exists() -> None:
    named = [(name, row) for row in ROWS for name in re.findall(r"`(test_\w+)`", row)]
    assert len(named) > 10
    for name, row in named:
        stated = re.search(rf"`{name}` \((tests/[\w/]+\.py)\)", row)
        files = [stated[1]] if stated else HERE
        assert any(f"def {name}(" in (ROOT / f).read_text() for f in files), f"{name}: {files}"


def test_what_the_judge_asserts_is_listed() -> None:
    source = (ROOT / "tests" / "kit" / "sparkplug_judge.py").read_text()
    cited = set(re.findall(r'"((?:topic|payloads|operational|message)[a-z0-9-]+)"', source))
    assert len(cited) > 15
    assert not cited - LISTED
