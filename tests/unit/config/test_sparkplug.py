"""What the configuration of a Sparkplug output becomes for its publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.publisher.sparkplug.node import Node
from services.runtime import loader, render
from services.runtime.errors import ConfigError

FIELDS = [
    {"name": "rodando", "type": "BOOL", "offset": 0.0},
    {"name": "corrente", "type": "REAL", "offset": 2, "unit": "A"},
    {"name": "nivel", "type": "INT", "offset": 6, "scale": {"factor": 0.1, "bias": 0}},
]
SCADA = {"name": "scada", "type": "sparkplug", "host": "127.0.0.1", "port": 1883, "tls": False}


def loaded(folder: Path, *outputs: dict[str, Any], fields: Any = FIELDS) -> render.Rendered:
    group = {"name": "linha", "db": 500, "fields": fields, "machines": {"count": 2, "stride": 8}}
    config = {
        "site": "planta-sp",
        "locatario": "acme",
        "paths": {"state": str(folder / "s"), "runtime": str(folder / "r")},
        "plcs": [{"id": "p1", "host": "10.0.0.1", "timezone": "America/Bahia", "groups": [group]}],
        "outputs": list(outputs),
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return render.render(loader.load(file))


def test_the_publisher_knows_every_field_and_others_do_not(tmp_path: Path) -> None:
    console = {"name": "console", "type": "stdout"}
    rendered = loaded(tmp_path, SCADA, console)
    own = rendered["publisher-scada"]
    node = Node("acme", "planta-sp", own["plcs"])
    birth = list(node.births(1))[1].payload
    names = {m.name: m.datatype for m in birth.metrics if not m.name.startswith("_gap/")}
    assert names == {
        f"linha/{machine}/{name}": datatype
        for machine in ("m00", "m01")
        for name, datatype in (("rodando", 11), ("corrente", 9), ("nivel", 10))
    }
    assert own["plcs"][0]["groups"][0]["timezone"] == "America/Bahia"
    assert "fields" not in rendered["publisher-console"]["plcs"][0]["groups"][0]
    assert (own["output"]["primary_host"], own["output"]["host_grace"]) == (None, 2.0)


def test_another_field_restarts_no_publisher(tmp_path: Path) -> None:
    before = loaded(tmp_path, SCADA)["publisher-scada"]
    after = loaded(tmp_path, SCADA, fields=FIELDS[:2])["publisher-scada"]
    assert before != after
    assert render.config_hash(before) == render.config_hash(after)


def test_one_edge_node_is_at_one_broker_once(tmp_path: Path) -> None:
    twin = {**SCADA, "name": "outro", "hosts": ["10.0.0.9", "127.0.0.1"]}
    del twin["host"]
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, SCADA, twin)
    (problem,) = caught.value.problems
    assert problem.key == "outputs[1]"
    assert "the same edge node" in problem.message
    loaded(tmp_path, SCADA, {**twin, "port": 1884})


@pytest.mark.parametrize("host", ["a/b", "#", "+", ""])
def test_a_primary_host_is_one_level_of_a_topic(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="primary_host"):
        loaded(tmp_path, {**SCADA, "primary_host": host})


def test_an_output_that_may_lose_is_warned_of(tmp_path: Path) -> None:
    loaded(tmp_path, SCADA)
    file = tmp_path / "config.yaml"
    assert [w for w in loader.load(file).config.warnings if "primary_host" in w]
    loaded(tmp_path, {**SCADA, "primary_host": "scada"})
    assert not loader.load(file).config.warnings
