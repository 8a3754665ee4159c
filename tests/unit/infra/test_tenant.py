"""What one tenant has, and that both ways of making it make the same."""

from __future__ import annotations

import json
import re

import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.control_plane.first import PLANS
from services.control_plane.outside import influxdb
from services.infra import dashboards, model, render, tenant
from services.infra.tenant import Kinds
from services.runtime import loader
from tests.kit.common import ROOT


def test_plans_of_the_control_plane_keep_what_those_of_the_files_do() -> None:
    assert {p: raw for p, (_, _, raw) in PLANS.items()} == {
        p: days[0] for p, days in tenant.RETENTION_DAYS.items()
    }
    for raw, clean, minute in tenant.RETENTION_DAYS.values():
        assert [b.days for b in tenant.buckets(raw)] == [raw, clean, minute, 365, 30]


@given(st.integers(1, 36_500), st.integers(1, 36_500))
def test_coarser_is_kept_no_shorter_and_more_days_are_never_less(one: int, two: int) -> None:
    """Whatever ``PUT /v1/plans`` says."""
    less, more = (tenant.buckets(days) for days in sorted((one, two)))
    for found in (less, more):
        days = [b.days for b in found][:4]
        assert days == sorted(days)
    assert all(a.days <= b.days for a, b in zip(less, more, strict=True))
    assert [b.name for b in less] == [b.name for b in more]


@given(st.integers(1, 36_500))
def test_a_shard_is_no_longer_than_what_is_kept(days: int) -> None:
    """InfluxDB refuses it otherwise."""
    rule = influxdb.retention(days)
    assert 3_600 <= rule["shardGroupDurationSeconds"] <= rule["everySeconds"] == days * 86_400


NAMES = st.frozensets(st.sampled_from("abcd"))


@given(st.lists(st.builds(Kinds, NAMES, NAMES, NAMES)))
def test_a_name_that_is_two_things_is_a_plain_number(parts: list[Kinds]) -> None:
    whole = tenant.join(parts)
    booleans, counters = whole.conditions()
    assert not set(booleans) & set(counters)
    for name in booleans:
        assert all(name not in p.counters | p.others for p in parts)
    assert tenant.join([*parts, whole]) == whole


def _fleet() -> model.Fleet:
    return model.fleet([loader.load(ROOT / "deploy/config.example.yaml", check_secrets=False)])


def test_the_scripts_make_what_the_control_plane_makes() -> None:
    """Read out of the shell script and the provisioning files that are rendered."""
    fleet = _fleet()
    files = render.render(fleet)
    script = files["influxdb/initdb.d/10-plc-edge.sh"]
    sources = yaml.safe_load(files["grafana/provisioning/datasources/plc-edge.yaml"])
    for t in fleet.tenants:
        days = tenant.RETENTION_DAYS[t.plan][0]
        rows = re.findall(rf"^bucket {t.id} (\S+) (\d+)$", script, re.M)
        assert rows == [(b.name, str(b.days)) for b in tenant.buckets(days)]
        told = re.findall(rf'^token (\S+) {t.id} "([^"]+)"', script, re.M)
        assert sorted(told) == sorted((k.file(t.id), k.description) for k in tenant.TOKENS)
        variables = re.findall(rf"^writer (\S+) ({t.id}-\S+)$", script, re.M)
        assert variables == [
            (tenant.telegraf_variable(t.id, k), k.file(t.id)) for k in tenant.WRITERS
        ]
        for _, variable in variables:
            assert variable
        for variable, _ in variables:
            assert f"{{{variable}:?" in files["telegraf/telegraf.conf"]
        (listed,) = set(re.findall(rf"^for file in (.*); do\n  task {t.id} ", script, re.M))
        tasks = tenant.tasks(fleet.booleans, fleet.counters, days)
        assert sorted(listed.split()) == sorted(task.file for task in tasks)
        for task in tasks:
            assert files[f"influxdb/tasks/{task.file}.flux"] == task.flux
            assert f'option task = {{name: "{task.name}",' in task.flux
        (source,) = [s for s in sources["datasources"] if s["orgId"] == f"$ORG_{t.slug}"]
        right = tenant.data_source(t.id, fleet.influx_url)
        assert {key: source[key] for key in right} == right
    for name, board in dashboards.all_dashboards().items():
        assert json.loads(files[f"grafana/dashboards/{name}.json"]) == board
    folders = yaml.safe_load(files["grafana/provisioning/dashboards/plc-edge.yaml"])["providers"]
    assert {provider["folder"] for provider in folders} == {tenant.FOLDER}


def test_no_tenant_of_the_control_plane_has_the_operators_name() -> None:
    from services.control_plane.routes import tenants

    assert tenants.RESERVED == tenant.PLATFORM
