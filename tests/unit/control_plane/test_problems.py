"""Refusals in two languages."""

from __future__ import annotations

import re
from collections import defaultdict
from string import Formatter

import pytest

from services.control_plane import problems
from services.control_plane.problems import _TEXTS, Refusal, document, language
from tests.kit.common import ROOT


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", "en"), ("*", "en"), ("pt", "pt"), ("pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        ("en-US,en;q=0.9,pt;q=0.8", "en"), ("de,pt;q=0.1", "pt"), ("fr", "en"),
        ("en;q=0.5,pt;q=0.6", "pt"), ("pt;q=x", "en"), (";;,,", "en"), ("PT-br", "pt"),
    ],
)  # fmt: skip
def test_the_language_that_is_liked_best(header: str, wanted: str) -> None:
    assert language(header) == wanted


@pytest.mark.parametrize("code", _TEXTS)
def test_both_languages_say_the_same_numbers(code: str) -> None:
    _, *texts = _TEXTS[code]
    english, portuguese = ({n for _, n, _, _ in Formatter().parse(t[1]) if n} for t in texts)
    assert english == portuguese
    members = defaultdict(lambda: "x", dict.fromkeys(english, "x"))
    for accepted in problems.LANGUAGES:
        made = document(Refusal(code, **members), accepted, "/v1/me")
        assert "{" not in made["detail"]
        assert made["type"] == f"urn:plc-edge:problem:{code}"


def test_every_refusal_that_is_raised_is_in_the_table_and_the_other_way_round() -> None:
    raised = set()
    for file in (ROOT / "services" / "control_plane").rglob("*.py"):
        for call in re.findall(r"Refusal\(\s*([^)]*)", file.read_text()):
            raised |= set(re.findall(r'"([a-z]+(?:-[a-z]+)*)"(?!\s*:)', call.split(",")[0]))
    assert raised == set(_TEXTS)
