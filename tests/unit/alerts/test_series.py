"""What the centre keeps of a configuration says the same of rules as the configuration itself."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.runtime import alert_layouts, alert_rules, alert_series, loader
from services.runtime.alert_model import Alerts
from services.runtime.site import Site
from tests.kit.common import ROOT

CONFIG = f"""\
site: planta-sp
locatario: acme
plcs:
  - id: prensa-01
    host: 192.168.0.10
    groups: [{{name: db500, db: 500, scan: 500ms, layout: {ROOT}/deploy/layouts/db500.yaml}}]
  - id: linha-02
    host: 192.168.0.11
    groups:
      - name: maquinas
        db: 500
        scan: 2s
        publish: on_change
        layout: {ROOT}/deploy/layouts/db500_maquinas.yaml
        machines: {{count: 3, stride: 66, name: "m{{n:02d}}"}}
"""
NAMES = st.sampled_from(
    ("prensa-01", "linha-02", "linha", "*", "db500", "maquinas", "heartbeat", "m01", "m9",
     "AI_Corrente", "AI_Corrent", "contador_bom", "sensor.*.valor", "status", "planta-sp", "acme")
)  # fmt: skip
WHERE = st.dictionaries(
    st.sampled_from(("locatario", "site", "plc", "group", "machine", "field")), NAMES, max_size=4
)
RULES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("threshold"), "where": WHERE, "above": st.just(1.0),
         "for": st.sampled_from(("0s", "1s", "1m")), "unit": st.sampled_from((None, "A", "%"))}
    ),
    st.fixed_dictionaries(
        {"type": st.just("absence"), "where": WHERE, "for": st.sampled_from(("10s", "5m"))}
    ),
    st.fixed_dictionaries(
        {"type": st.just("rate_change"), "where": WHERE, "above": st.just(1.0),
         "window": st.just("1m"), "counter": st.sampled_from((None, True, "INT", "DINT"))}
    ),
)  # fmt: skip


def load(folder: Path) -> Site:
    file = folder / "config.yaml"
    file.write_text(CONFIG)
    return loader.load(file, {})


def test_as_the_configuration_itself(tmp_path_factory: object) -> None:
    site = load(tmp_path_factory.mktemp("series"))  # type: ignore[attr-defined]
    own = alert_layouts.Layouts.of(site)
    series = alert_series.unpack(json.loads(json.dumps(alert_series.of_site(site))))
    kept = alert_series.layouts("acme", ["planta-sp"], series)
    assert alert_series.holds_ms(series) == [
        (plc, group, ms) for (plc, group), ms in alert_rules.holds_ms(site).items()
    ]
    streams = {plc: found for _, _, plc, found in alert_rules.roster(site)}
    assert {plc: alert_series.streams(series, plc) for plc in streams} == streams
    mistakes = 0

    @given(st.lists(RULES, min_size=1, max_size=3))
    def check(rules: list[dict[str, object]]) -> None:
        nonlocal mistakes
        named = [{**rule, "name": f"r{i}x"} for i, rule in enumerate(rules)]
        alerts = Alerts.model_validate({"rules": named})
        found = list(alert_rules.check_layouts(alerts, kept))
        assert found == list(alert_rules.check_layouts(alerts, own))
        mistakes += len(found)

    check()
    assert mistakes
