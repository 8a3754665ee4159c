"""The text, read back by the parsers that others use."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from services.metrics.aggregate import Histogram
from services.metrics.exposition import CLASSIC, OPENMETRICS, Exposition, Item, negotiate

ITEMS: list[Item] = [
    ("plc_edge_reconnects_total", (("plc", "prensa-01"),), "counter", 3.0),
    ("plc_edge_plc_up", (("plc", "prensa-01"),), "gauge", 1.0),
    ("plc_edge_store_bytes", (), "gauge", 4.5),
    (
        "plc_edge_scan_duration_seconds",
        (("group", "db500"), ("plc", "prensa-01")),
        "histogram",
        Histogram({0.001: 1, 0.01: 2, math.inf: 4}, 0.25),
    ),
]


def samples(text: bytes, content_type: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    parse = parse_open if content_type == OPENMETRICS else parse_classic
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse(text.decode())
        for s in family.samples
    }


@pytest.mark.parametrize("content_type", [CLASSIC, OPENMETRICS])
def test_read_back(content_type: str) -> None:
    exposition = Exposition()
    exposition.text(ITEMS, content_type)  # the second time comes from what is kept
    found = samples(exposition.text(ITEMS, content_type), content_type)
    where = (("group", "db500"), ("plc", "prensa-01"))
    name = "plc_edge_scan_duration_seconds"
    assert found[("plc_edge_reconnects_total", (("plc", "prensa-01"),))] == 3
    assert found[("plc_edge_store_bytes", ())] == 4.5
    buckets = {dict(k[1])["le"]: v for k, v in found.items() if k[0] == f"{name}_bucket"}
    assert {float(k): v for k, v in buckets.items()} == {0.001: 1, 0.01: 3, math.inf: 7}
    assert found[(f"{name}_count", where)] == 7
    assert found[(f"{name}_sum", where)] == 0.25


@given(st.text(max_size=30), st.floats(allow_nan=False))
def test_any_label_and_number(label: str, value: float) -> None:
    item: Item = ("plc_edge_x", (("reason", label),), "gauge", value)
    for content_type in (CLASSIC, OPENMETRICS):
        if content_type == CLASSIC and set(label) & set("\x85\u2028\u2029\r\x0b\x0c\x1c\x1d\x1e"):
            continue  # prometheus_client's classic parser splits lines at these
        found = samples(Exposition().text([item], content_type), content_type)
        assert found == {("plc_edge_x", (("reason", label),)): value}


def test_negotiation() -> None:
    assert negotiate("application/openmetrics-text;version=1.0.0,text/plain;q=0.5") == OPENMETRICS
    assert negotiate("text/plain") == CLASSIC
    assert negotiate("") == CLASSIC


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    text = Exposition().text(ITEMS, CLASSIC)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
