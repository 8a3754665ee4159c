"""telegraf.conf as TOML, the Starlark processor on a table of messages, and both against the
messages that plc-edge really makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.reader.message import Message
from tests.kit.starlark import SCRIPT, Processor
from tests.kit.telegraf import Telegraf

INFRA = Path(__file__).resolve().parents[3] / "infra"
TELEGRAF = Telegraf((INFRA / "telegraf" / "telegraf.conf").read_text())
CONF = TELEGRAF.conf
SECOND = 1_000_000_000
NOW = 1_764_000_100 * SECOND
TS_MS = 1_764_000_000_123
CONSTANTS = TELEGRAF.constants


def _inputs() -> dict[str, dict[str, Any]]:
    return TELEGRAF.inputs


def _parsed(alias: str, topic: str, text: str) -> dict[str, Any]:
    return TELEGRAF.parsed(alias, topic, text, NOW)


def message(**changes: Any) -> dict[str, Any]:
    base = {
        "v": 1,
        "site": "planta-sp",
        "locatario_id": "acme",
        "plc_id": "prensa-01",
        "ip": "192.168.0.10",
        "db": 500,
        "group": "db500",
        "measurement": "s7_db1",
        "machine": "m03",
        "ts": TS_MS,
        "epoch": 1_763_999_000_123,
        "seq": 4182,
        "quality": "good",
        "latency_ms": 2.41,
        "values": {"ciclos": 1234},
    }
    return {k: v for k, v in {**base, **changes}.items() if v != "absent"}


def run(changes: dict[str, Any], topic: str = "plc/acme/prensa-01") -> dict[str, Any]:
    text = json.dumps(message(**changes))
    return Processor(CONSTANTS).apply(_parsed("dados", topic, text))


def test_good_message() -> None:
    point = run({})
    assert point["name"] == "s7_db1"
    assert point["time"] == TS_MS * 1_000_000
    assert point["tags"] == {
        "site": "planta-sp",
        "locatario_id": "acme",
        "plc_id": "prensa-01",
        "db": "500",
        "ip": "192.168.0.10",
        "group": "db500",
        "machine": "m03",
        "quality": "good",
        "_rota": "acme/bom",
    }
    assert point["fields"] == {
        "ciclos": 1234.0,
        "epoch": 1_763_999_000_123.0,
        "seq": 4182.0,
        "latency_ms": 2.41,
    }
    assert all(type(v) is float for v in point["fields"].values())


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (True, {"x": 1.0}),
        (False, {"x": 0.0}),
        (7, {"x": 7.0}),
        (-2_147_483_648, {"x": -2_147_483_648.0}),
        (0.12, {"x": 0.12}),
        (9_007_199_254_740_992, {"x": 9_007_199_254_740_992.0}),
        ("9007199254740993", {"x_txt": "9007199254740993"}),
        ("São Paulo", {"x_txt": "São Paulo"}),
        ("", {"x_txt": ""}),
        ("2026-01-02T03:04:05", {"x_txt": "2026-01-02T03:04:05"}),
        (None, {}),
        ([1, True, "a", None], {"x.0": 1.0, "x.1": 1.0, "x.2_txt": "a"}),
        ([[1, 2], [3, 4]], {"x.0.0": 1.0, "x.0.1": 2.0, "x.1.0": 3.0, "x.1.1": 4.0}),
        ({"corrente": 2.5}, {"x.corrente": 2.5}),
    ],
)
def test_types(value: Any, fields: dict[str, Any]) -> None:
    point = run({"values": {"x": value}})
    got = {k: v for k, v in point["fields"].items() if k.startswith("x")}
    assert got == fields
    assert all(type(got[k]) is type(v) for k, v in fields.items())


@pytest.mark.parametrize(
    ("ts", "wanted_ns"),
    [
        (1_764_000_000, 1_764_000_000 * SECOND),
        (1_764_000_000.5, 1_764_000_000 * SECOND + SECOND // 2),
        (TS_MS, TS_MS * 1_000_000),
        (TS_MS * 1_000 + 456, TS_MS * 1_000_000 + 456_000),
        (TS_MS * 1_000_000 + 456_789, TS_MS * 1_000_000 + 456_789),
        (str(TS_MS), TS_MS * 1_000_000),
        ("absent", NOW),
        (None, NOW),
        (0, NOW),
        (-5, NOW),
        ("ontem", NOW),
        (True, NOW),
    ],
)
def test_time_by_magnitude(ts: Any, wanted_ns: int) -> None:
    point = run({"ts": ts})
    assert point["time"] == wanted_ns
    assert ("ts_ausente" in point["fields"]) == (wanted_ns == NOW)


@pytest.mark.parametrize(
    ("said", "topic", "wanted", "divergent"),
    [
        ({}, "plc/acme/prensa-01", ("acme", "prensa-01"), False),
        ({"plc_id": "absent", "locatario_id": "absent"}, "plc/acme/p9", ("acme", "p9"), False),
        ({"plc_id": "forno-02"}, "plc/acme/prensa-01", ("acme", "prensa-01"), True),
        ({"locatario_id": "beta"}, "plc/acme/prensa-01", ("acme", "prensa-01"), True),
        ({}, "plc/beta/prensa-01", ("beta", "prensa-01"), True),
    ],
)
def test_identity(
    said: dict[str, str], topic: str, wanted: tuple[str, str], divergent: bool
) -> None:
    point = run(said, topic)
    assert (point["tags"]["locatario_id"], point["tags"]["plc_id"]) == wanted
    assert point["tags"].get("id_divergente") == ("true" if divergent else None)
    assert ("id_no_payload_txt" in point["fields"]) == divergent
    assert point["tags"]["_rota"] == f"{wanted[0]}/bom"


@pytest.mark.parametrize(
    ("changes", "topic", "reason"),
    [
        ({"measurement": "outra"}, "plc/acme/prensa-01", "measurement"),
        ({"measurement": "absent"}, "plc/acme/prensa-01", "measurement"),
        ({"measurement": ["s7_db1"]}, "plc/acme/prensa-01", "measurement"),
        ({"ts": TS_MS - 8 * 86_400_000}, "plc/acme/prensa-01", "antigo"),
        ({"ts": TS_MS + 2 * 86_400_000}, "plc/acme/prensa-01", "futuro"),
        ({"values": "absent"}, "plc/acme/prensa-01", "values"),
        ({"values": [1]}, "plc/acme/prensa-01", "values"),
        ({}, "plc/gama/prensa-01", "locatario"),
    ],
)
def test_refused_is_counted(changes: dict[str, Any], topic: str, reason: str) -> None:
    processor = Processor(CONSTANTS)
    for total in (1.0, 2.0):
        point = processor.apply(_parsed("dados", topic, json.dumps(message(**changes))))
        _, tenant, plc = topic.split("/")
        assert point == {
            "name": "telegraf_recusados",
            "tags": {"locatario": tenant, "plc": plc, "motivo": reason, "_rota": "plataforma"},
            "fields": {"total": total},
            "time": NOW,
        }


@pytest.mark.parametrize("text", ["", "[1]", "5", "null", "{"])
def test_no_object_is_refused(text: str) -> None:
    point = Processor(CONSTANTS).apply(_parsed("dados", "plc/acme/prensa-01", text))
    assert point["tags"]["motivo"] == "json"


@pytest.mark.parametrize("quality", ["bad", "uncertain", "outra", None])
def test_only_good_is_clean(quality: str | None) -> None:
    point = run({"quality": quality, "bad": {"x": "read_failed"}})
    assert point["tags"]["_rota"] == "acme/bruto"
    assert point["tags"]["quality"] == (quality if quality == "uncertain" else "bad")
    assert "read_failed" in point["fields"]["bad_txt"]


def test_offline_message_has_no_clean_point() -> None:
    assert run({"values": {}})["tags"]["_rota"] == "acme/bruto"


def test_replay_is_marked() -> None:
    assert run({"replay": True})["fields"]["replay"] == 1.0


def test_heartbeat() -> None:
    beat = {
        "v": 1,
        "site": "planta-sp",
        "locatario_id": "acme",
        "plc_id": "prensa-01",
        "ip": "10.0.0.1",
        "ts": TS_MS,
        "interval_s": 10.0,
        "status": "degraded",
        "scan_ms": 12.5,
        "latency_ms": 2.5,
        "reads_ok": 10,
        "reads_failed": 1,
        "uptime_s": 99,
        "pending": 0,
        "failure": {"code": "timeout", "message": "sem resposta", "since": TS_MS, "attempts": 3},
    }
    given = _parsed("sinais", "plc/acme/prensa-01/heartbeat", json.dumps(beat))
    point = Processor(CONSTANTS).apply(given)
    assert (point["name"], point["tags"]["_rota"]) == ("heartbeat", "acme/plataforma")
    assert point["fields"]["online"] == 0.0
    assert point["fields"]["pending"] == 0.0
    assert point["fields"]["failure_code_txt"] == "timeout"
    assert point["fields"]["failure_attempts"] == 3.0
    assert "topico_tipo" not in point["tags"]


def test_gap_with_open_end() -> None:
    gap = {
        "v": 1,
        "locatario_id": "acme",
        "plc_id": "prensa-01",
        "ts": TS_MS,
        "epoch": 5,
        "first_seq": 10,
        "last_seq": None,
        "count": None,
        "from_ts": TS_MS,
        "to_ts": TS_MS,
        "reason": "store_full",
    }
    given = _parsed("sinais", "plc/acme/prensa-01/gap", json.dumps(gap))
    point = Processor(CONSTANTS).apply(given)
    assert point["name"] == "lacuna"
    assert point["fields"]["first_seq"] == 10.0
    assert "count" not in point["fields"]
    assert point["fields"]["reason_txt"] == "store_full"
    # What a plan withheld raises no alarm of lost data.
    notice = {**gap, "reason": "quota", "last_seq": 30, "count": 9, "seqs": [[10, 12], [25, 30]]}
    point = Processor(CONSTANTS).apply(
        _parsed("sinais", "plc/acme/prensa-01/gap", json.dumps(notice))
    )
    assert (point["name"], point["fields"]["count"]) == ("cota", 9.0)


@pytest.mark.parametrize(("ts", "wanted"), [(TS_MS, TS_MS * 1_000_000), ("absent", NOW)])
def test_edge_status(ts: Any, wanted: int) -> None:
    status = {"v": 1, "site": "planta-sp", "status": "offline", "ts": ts}
    text = json.dumps({k: v for k, v in status.items() if v != "absent"})
    point = Processor(CONSTANTS).apply(_parsed("edge", "edge/acme/planta-sp/status", text))
    assert (point["name"], point["time"]) == ("edge_status", wanted)
    tags = {k: v for k, v in point["tags"].items() if k != "_rota"}
    assert tags == {"locatario_id": "acme", "site": "planta-sp"}
    assert point["fields"]["online"] == 0.0


@pytest.mark.parametrize(("plc", "tenant"), [("prensa-01", "acme"), ("forno-02", "beta")])
def test_scraped_metrics_go_to_the_plcs_tenant(plc: str, tenant: str) -> None:
    tags = {"plc": plc, "site": "planta-sp", "_dono": "acme"}
    given = {"name": "agente", "tags": tags, "fields": {"plc_edge_plc_up": 1.0}, "time": NOW}
    point = Processor(CONSTANTS).apply(given)
    assert point["tags"]["_rota"] == f"{tenant}/plataforma"
    assert "_dono" not in point["tags"]


WITHOUT_TEXT = {**CONSTANTS, "keeps_text": False}


def _all_without_text(alias: str, topic: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    return Processor(WITHOUT_TEXT).all(_parsed(alias, topic, json.dumps(body)))


def _texts(points: list[dict[str, Any]]) -> list[Any]:
    return [v for p in points for v in p["fields"].values() if isinstance(v, str)]


def test_a_database_without_text_is_given_none() -> None:
    """Known words become labels of points of their own; a PLC's text is left out and counted."""
    body = message(values={"receita": "A7", "lote": "B", "x": 1}, plc_id="outro",
                   bad={"y": "read_failed"})  # fmt: skip
    point, said, bad = _all_without_text("dados", "plc/acme/prensa-01", body)
    assert _texts([point, said, bad]) == []
    assert (point["fields"]["x"], point["fields"]["textos_omitidos"]) == (1.0, 2.0)
    assert point["tags"]["_rota"] == "acme/bom"
    assert (said["name"], said["tags"]["id_no_payload"]) == ("identidade", "acme/outro")
    assert (bad["name"], bad["tags"]["campo"], bad["tags"]["motivo"]) == (
        "campo_ruim", "y", "read_failed"
    )  # fmt: skip
    for other in (said, bad):
        # Never among the cleaned points, and never another tenant's.
        assert other["tags"]["_rota"] == "acme/bruto"
        assert other["time"] == point["time"]
        assert list(other["fields"].values()) == [1.0]


def test_signals_without_text() -> None:
    beat = {"ts": TS_MS, "status": "degraded", "failure": {"code": "timeout", "attempts": 3}}
    topic = "plc/acme/prensa-01/heartbeat"
    point, failure = _all_without_text("sinais", topic, beat)
    assert _texts([point, failure]) == []
    assert (failure["name"], failure["tags"]["codigo"]) == ("falha", "timeout")
    assert failure["fields"] == {"tentativas": 3.0}
    assert failure["tags"]["_rota"] == point["tags"]["_rota"] == "acme/plataforma"
    gap = {"ts": TS_MS, "from_ts": TS_MS, "reason": "store_full"}
    (point,) = _all_without_text("sinais", "plc/acme/prensa-01/gap", gap)
    assert point["tags"]["motivo"] == "store_full"
    assert _texts([point]) == []


def test_every_route_has_an_output() -> None:
    routes = [r for o in CONF["outputs"]["influxdb_v2"] for r in o["tagpass"]["_rota"]]
    wanted = {f"{t}/{k}" for t in CONSTANTS["raw_days"] for k in ("bom", "bruto", "plataforma")}
    assert set(routes) == wanted | {"plataforma"}
    for output in CONF["outputs"]["influxdb_v2"]:
        assert "_rota" in output["tagexclude"]
        assert re.fullmatch(r"\$\{INFLUX_TOKEN_[A-Z_]+:\?[^}]+\}", output["token"])


def test_consumers_differ_in_account_and_client_id() -> None:
    consumers = list(_inputs().values())
    for key in ("client_id", "username", "password"):
        assert len({c[key] for c in consumers}) == len(consumers) == 3
    for c in consumers:
        assert c["qos"] == 1
        assert c["persistent_session"] is True
        assert c["topic_tag"] == ""
        assert c["max_undelivered_messages"] < 2_000
        assert re.fullmatch(r"\$\{MQTT_PASSWORD_[A-Z_]+:\?[^}]+\}", c["password"])


# --- drift: what the reader really makes, and CONTRACT §4 -------------------------------------


def test_paths_exist_in_what_the_reader_makes() -> None:
    made = Message(
        site="planta-sp",
        locatario="acme",
        plc="prensa-01",
        ip="10.0.0.1",
        db=500,
        group="db500",
        measurement="s7_db1",
        machine="m03",
    ).body(TS_MS, "good", 2.41, {"ciclos": 1}, {"x": "read_failed"})(5, 6)
    sample = json.loads(made)
    paths = {t["path"] for t in _inputs()["dados"]["json_v2"][0]["tag"]}
    body = SCRIPT.read_text().split("def data(")[1].split("\ndef ")[0]
    paths |= set(re.findall(r'message(?:\.get\(|\[)"(\w+)"', body))
    paths |= set(re.findall(r'for key in \("(\w+)", "(\w+)", "(\w+)"\)', body)[0])
    assert paths - {"replay"} <= set(sample)
    # And the other way: nothing of a message is left unread, but its version.
    assert set(sample) - {"v", "ts"} <= paths
    point = Processor(CONSTANTS).apply(_parsed("dados", "plc/acme/prensa-01", made.decode()))
    assert point["tags"]["_rota"] == "acme/bom"


def test_contract_of_the_documentation() -> None:
    text = (INFRA.parent / "docs" / "wire-format.md").read_text()
    example = re.search(r"```json\n(\{.*?\})\n```", text, re.S)
    assert example
    sample = json.loads(example[1])
    point = Processor(CONSTANTS).apply(_parsed("dados", "plc/acme/prensa-01", json.dumps(sample)))
    assert point["name"] == sample["measurement"]
    assert point["fields"]["temperatura"] == 81.5
    assert point["fields"]["rodando"] == 1.0
