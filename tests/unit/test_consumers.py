"""Which processes take rows from the store is said in two places, and no name is given twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus import topology
from bus.topology import PROCESSES, ProcessClass
from services.runtime.consumers import consumers
from services.runtime.errors import ConfigError
from services.runtime.loader import load

SITE = """\
site: planta-sp
locatario: acme
plcs:
  - {id: prensa-01, host: 127.0.0.1, groups: [{name: gg, fields: [{name: a, address: MW0}]}]}
outputs:
  - {name: console, type: stdout}
  - {name: tally, type: stdout}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SITE)
    return path


def test_every_consumer_is_a_process_that_the_table_says_consumes(file: Path) -> None:
    found = consumers(load(file).config)
    assert [c["name"] for c in found] == ["console", "tally"]
    for consumer in found:
        (one,) = [p for p in PROCESSES.values() if consumer["process"].startswith(p.prefix)]
        assert one.consumes


def test_an_output_cannot_have_the_name_of_a_process_that_consumes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = ProcessClass("tally", "tally", consumes=True)
    monkeypatch.setitem(topology.PROCESSES, "tally", tally)
    with pytest.raises(ConfigError, match="'tally' is the name of a process") as refused:
        load(file)
    assert [p.line for p in refused.value.problems] == [7]
