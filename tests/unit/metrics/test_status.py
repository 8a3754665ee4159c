"""From frames to the words a technician reads; readiness; words in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus.frames import Event, Heartbeat, Scan, State, Stats
from services.metrics import words
from services.metrics.processes import ProcessTable
from services.metrics.site import Site
from services.metrics.status import Status
from services.runtime.clock import now_ms
from services.runtime.process_table import Row

PROCESSES = ["reader-p1", "publisher-central", "store_forward", "metrics"]
CONFIG: dict[str, Any] = {
    "site": "s",
    "clock_sync": "ignored",
    "processes": PROCESSES,
    "store_max_bytes": 1_000,
    "plcs": [
        {
            "id": "p1",
            "locatario": "acme",
            "host": "10.0.0.1",
            "groups": [
                {"name": "fast", "scan_s": 0.5, "machines": [None, "m00", "m01"], "trend": ["x"]},
                {"name": "slow", "scan_s": 4.0},
            ],
        },
    ],
    "outputs": [{"name": "central", "process": "publisher-central", "type": "mqtt"}],
    "mirrors": [],
}


class World:
    """A site with a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.site = Site(CONFIG, lambda: self.now_s)
        self.table = ProcessTable(PROCESSES, lambda: self.now_s)
        self.status = Status(self.site, self.table)
        self.run()

    def run(self, **states: str) -> None:
        self.table.update(
            [
                Row(n, states.get(n.replace("-", "_"), "RUNNING"), 0, 1, 0, 2, 0, "")
                for n in PROCESSES
            ]
        )

    def beat(self, status: str = "online", **failure: Any) -> None:
        self.site.apply(
            Heartbeat(
                "p1",
                "acme",
                "10.0.0.1",
                now_ms(),
                10.0,
                status,
                3.0,
                2.0,
                10,
                0,
                5.0,
                0,
                failure or None,
            )
        )

    def scan(
        self, group: str = "fast", quality: str = "good", age_ms: int = 0, **body: Any
    ) -> None:
        # As the reader writes it: the machine stands before the values.
        head: dict[str, Any] = {key: body.pop(key) for key in ("machine", "seq") if key in body}
        values = body.pop("values", {"x": 1.5})
        body = {
            "plc_id": "p1",
            "group": group,
            **head,
            "ts": now_ms(),
            "quality": quality,
            "values": values,
            **body,
        }
        self.site.apply(
            Scan("p1", "acme", group, now_ms() - age_ms, 3.0, 2.0, [orjson.dumps(body)], quality)
        )

    def codes(self) -> list[tuple[str, str]]:
        return [(p["severity"], p["code"]) for p in self.status.document()["problems"]]


@pytest.fixture
def world() -> World:
    world = World()
    world.beat()
    world.scan()
    return world


def test_all_well(world: World) -> None:
    document = world.status.document()
    assert document["status"] == "ok"
    assert document["problems"] == []
    assert world.status.not_ready() == []
    json.dumps(document)


def test_starting_before_anybody_speaks() -> None:
    world = World()
    assert world.status.document()["status"] == "starting"
    assert world.status.not_ready() == ["PLC p1: never read"]
    world.now_s += 6
    assert world.codes() == [("error", "plc_no_reader")]


def test_offline_in_words_with_what_to_check(world: World) -> None:
    world.beat("offline", code="timeout", message="no answer in 2 s", since=now_ms() - 4_000)
    document = world.status.document()
    (problem,) = document["problems"]
    assert document["status"] == "error"
    assert problem["text"] == "No answer from the PLC at 10.0.0.1"
    assert "cable" in problem["fix"]
    assert "power" in problem["fix"]
    assert document["plcs"][0]["failure"]["message"] == "no answer in 2 s"


def test_an_unknown_failure_still_has_words(world: World) -> None:
    world.beat("offline", code="never_heard_of", message="strange", since=1)
    (problem,) = world.status.document()["problems"]
    assert problem["text"]
    assert problem["fix"]


def test_ready_means_read_within_three_scans_or_five_seconds(world: World) -> None:
    world.now_s += 4.9
    assert world.status.not_ready() == []
    world.now_s += 0.2
    assert world.status.not_ready() == ["PLC p1: last read 5 s ago"]
    world.run(publisher_central="BACKOFF")
    world.scan("slow")
    assert world.status.not_ready() == ["process publisher-central is BACKOFF"]


def test_a_scan_that_read_nothing_is_no_read(world: World) -> None:
    world.now_s += 6
    world.beat()
    world.scan(quality="bad", values={}, bad={"*": "plc_offline"})
    assert world.status.not_ready() == ["PLC p1: last read 6 s ago"]
    assert ("error", "plc_stale") in world.codes()


def test_one_bad_field_of_many_is_a_read_and_named(world: World) -> None:
    world.now_s += 6
    world.beat()
    world.scan(quality="bad", bad={"y": "address_out_of_range"})
    assert world.status.not_ready() == []
    (problem,) = world.status.document()["problems"]
    assert (problem["severity"], problem["code"]) == ("warning", "fields_bad")
    assert problem["text"] == "Fields that cannot be read: 1 (y)"


def test_old_live_frames_are_thrown_away_and_counted(world: World) -> None:
    world.now_s += 6
    world.scan(age_ms=2_500)
    assert world.site.stale == 1
    assert world.status.not_ready()


def test_a_reader_that_fell_silent(world: World) -> None:
    world.site.apply(Stats("reader-p1", 1, 1, 0, []))
    world.now_s += 6
    assert ("error", "plc_no_reader") in world.codes()


def test_beats_an_hour_apart_and_a_new_metrics_process() -> None:
    world = World()
    up = ("gauge", "plc_edge_plc_up", {"plc": "p1"}, 1)
    world.site.apply(Stats("reader-p1", 1, 1, 0, [up]))
    world.scan()
    assert world.status.document()["plcs"][0]["status"] == "online"
    world.site.apply(Stats("reader-p1", 1, 1, 0, [(*up[:3], 0)]))
    assert world.status.document()["plcs"][0]["status"] == "offline"
    world.beat()
    for _ in range(40):
        world.now_s += 1
        world.site.apply(Stats("reader-p1", 1, 1, 0, [up]))
    assert world.status.document()["plcs"][0]["status"] == "online"


def test_everything_refused_is_no_read(world: World) -> None:
    world.now_s += 6
    world.beat("degraded", code="access_denied", message="permit PUT/GET", since=1)
    world.scan(quality="bad", values={}, bad={"x": "access_denied"})
    assert world.status.not_ready() == ["PLC p1: last read 6 s ago"]
    assert world.codes() == [("warning", "plc_access_denied")]


def test_frozen_values_are_not_counted_as_bad_fields(world: World) -> None:
    world.beat("degraded", code="cpu_stop", message="frozen", since=1)
    world.scan(quality="uncertain", bad={"*": "cpu_stop"})
    assert world.codes() == [("warning", "plc_cpu_stop")]
    assert world.status.document()["plcs"][0]["bad_fields"] == 0


def test_a_dead_process_is_told_once_not_twice(world: World) -> None:
    world.site.apply(State("publisher-central", now_ms(), "down", {"code": "refused"}))
    assert world.codes() == [("error", "output_refused")]
    world.run(publisher_central="FATAL")
    assert world.codes() == [("error", "process_down")]


def test_outbox_filling_and_dropping(world: World) -> None:
    samples = [
        ("gauge", "plc_edge_store_bytes", {}, 900),
        ("counter", "plc_edge_store_dropped_total", {"reason": "max_size"}, 7),
        ("counter", "plc_edge_store_dropped_total", {"reason": "purged"}, 100),
    ]
    world.site.apply(Stats("store_forward", 1, 1, 0, samples))
    world.status.tick()
    document = world.status.document()
    assert [p["code"] for p in document["problems"]] == ["store_dropping", "store_filling"]
    assert document["store"]["fill"] == 0.9
    assert document["store"]["dropped"] == 7
    world.now_s += 601
    world.site.apply(Stats("store_forward", 1, 1, 0, samples))
    assert "store_dropping" not in [c for _, c in world.codes()]


def test_a_tenant_over_its_quota_is_a_warning_and_no_loss(world: World) -> None:
    samples = [("counter", "plc_edge_store_dropped_total", {"reason": "quota"}, 9)]
    world.site.apply(Stats("store_forward", 1, 1, 0, samples))
    quotas = {
        "acme": {"points_per_min": 500, "thinned": True, "waiting": 2},
        "beta": {"points_per_min": 5_000, "thinned": False, "waiting": 0},
    }
    world.site.apply(State("store_forward", now_ms(), "ok", {"quotas": quotas}))
    world.status.tick()
    document = world.status.document()
    assert world.codes() == [("warning", "over_quota")]
    assert document["problems"][0]["subject"] == "acme"
    assert "500 points a minute" in document["problems"][0]["text"]
    assert document["store"]["dropped"] == 0
    assert document["store"]["quotas"] == quotas


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        ("no_tls", ("port:", "8883", "tls: false")),
        ("wants_tls", ("tls: false", "https://")),
        ("ca", ("tls: ca:",)),
        ("certificate_name", ("host:", "url:")),
        ("certificate_expired", ()),
        ("certificate_not_yet", ("NTP",)),
        ("client_certificate", ("cert:", "key:")),
        ("taken_over", ("site:", "client_id:")),
        ("unstable", ()),
        ("tls", ()),
    ],
)
def test_what_mends_an_output_is_said_in_both_languages(
    world: World, code: str, mend: tuple[str, ...]
) -> None:
    fields = {"target": "mqtts://b:1883", "code": code, "message": "m", "since": 1}
    world.site.apply(State("publisher-central", now_ms(), "down", fields))
    (problem,) = world.status.document()["problems"]
    assert problem["code"] == f"output_{code}"
    assert "mqtts://b:1883" in problem["text"]
    entry = json.loads((STATIC / "words.json").read_text())["problems"][problem["code"]]
    for words_of_fix in (problem["fix"], entry["pt"][1]):
        assert not [word for word in mend if word not in words_of_fix]


def test_disk_full_and_dead_letters(world: World) -> None:
    world.site.apply(State("store_forward", now_ms(), "down", {"disk_full": "No space left"}))
    dead = ("gauge", "plc_edge_store_dead_letters", {"output": "central"}, 2)
    world.site.apply(Stats("store_forward", 1, 1, 0, [dead]))
    assert world.codes() == [("error", "store_disk_full"), ("warning", "output_dead_letters")]


def test_rate_of_an_output(world: World) -> None:
    for n in range(4):
        sample = (
            "counter",
            "plc_edge_published_total",
            {"output": "central", "result": "ok"},
            n * 50,
        )
        world.site.apply(Stats("publisher-central", 1, 1, 0, [sample]))
        world.status.tick()
        world.now_s += 1
    assert world.status.document()["outputs"][0]["rate_per_s"] == 50


def test_machines_are_told_apart_without_decoding(world: World) -> None:
    world.scan()
    world.scan(machine="m99")
    world.scan(machine="m00", values={"x": 1})
    world.scan(machine="m01", values={"machine": "no"})
    world.scan("slow", values={"machine": "text of the PLC"})
    groups = world.site.plcs["p1"].groups
    assert set(groups["fast"].machines) == {"", "m00", "m01"}
    assert set(groups["slow"].machines) == {""}


def test_pinned_trend_and_latest_bodies(world: World) -> None:
    world.scan(machine="m00", values={"x": 4.5})
    assert world.site.trends.get(("p1", "fast", "m00", "x"))[1] == [4.5]
    bodies = [json.loads(b) for b in world.site.bodies(plc="p1", group="fast")]
    assert {b.get("machine") for b in bodies} == {None, "m00"}
    assert world.site.bodies(plc="p2") == []


def test_what_is_only_shown_is_no_message(world: World) -> None:
    world.site.watch(set(), everything=True)
    world.scan(seq=7, values={"x": 1})
    world.scan(seq=0, values={"x": 2, "text": '"seq":5,'})
    (last,) = world.site.bodies(group="fast")
    assert json.loads(last)["seq"] == 7
    shown = world.site.plcs["p1"].groups["fast"].machines[""].body
    assert json.loads(shown)["values"]["x"] == 2
    changed = world.site.take_changes()[0]
    assert [(published, json.loads(b)["seq"]) for (_, published), b in changed.items()] == [
        (True, 7),
        (False, 0),
    ]


def test_only_watched_groups_are_collected_for_the_stream(world: World) -> None:
    world.site.take_changes()
    world.scan()
    assert world.site.take_changes() == ({}, [])
    world.site.watch({("p1", "fast")}, everything=False)
    world.scan("slow")
    world.scan(values={"x": 2})
    world.scan(values={"x": 3})
    ((key, body),) = world.site.take_changes()[0].items()
    assert key == (("p1", "fast", ""), True)
    assert json.loads(body)["values"] == {"x": 3}


def test_events_are_kept_and_counted(world: World) -> None:
    world.site.apply(Event("store_forward", 1, "warning", "c", "t"))
    world.site.apply(Event("stranger", 1, "odd", "c", "t"))
    assert world.site.event_counts == {("store_forward", "warning"): 1, ("other", "info"): 1}


def test_new_configuration_keeps_what_stays(world: World) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["plcs"].append(
        {
            "id": "p2",
            "locatario": "acme",
            "host": "10.0.0.2",
            "groups": [{"name": "g", "scan_s": 1.0}],
        }
    )
    del config["plcs"][0]["groups"][1]
    world.site.configure(config)
    assert set(world.site.plcs["p1"].groups) == {"fast"}
    assert world.site.plcs["p1"].read_age_s(world.now_s) == 0
    assert world.site.plcs["p2"].beat is None


STATIC = words.STATIC


def test_every_word_in_both_languages() -> None:
    all_words = json.loads((STATIC / "words.json").read_text())
    assert all_words["ui"]["en"].keys() == all_words["ui"]["pt"].keys()
    for code, entry in all_words["problems"].items():
        assert len(entry["en"]) == len(entry["pt"]) == 2, code
        names = [set(re.findall(r"\{(\w+)\}", pair[0])) for pair in (entry["en"], entry["pt"])]
        assert names[0] == names[1], code
    for key, text in all_words["ui"]["en"].items():
        other = all_words["ui"]["pt"][key]
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", other)), key


def test_every_word_the_page_asks_for_exists() -> None:
    ui = json.loads((STATIC / "words.json").read_text())["ui"]["en"]
    for file in [*STATIC.glob("*.js"), STATIC / "index.html"]:
        for key in re.findall(r'\bw\.t\("(\w+)"|data-tp?="(\w+)"', file.read_text()):
            assert (key[0] or key[1]) in ui, f"{file.name}: {key}"


def test_every_problem_that_the_code_names_has_words() -> None:
    source = (Path(words.__file__).parent / "status.py").read_text()
    codes = re.findall(r'add\(\s*"(?:error|warning)",\s*"(\w+)"', source)
    assert len(codes) >= 10
    for code in codes:
        assert words.has_problem(code), code


def test_the_page_asks_nobody_else() -> None:
    for file in [*STATIC.glob("*.js"), *STATIC.glob("*.css"), STATIC / "index.html"]:
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.read_text())
        assert set(found) <= {"http://www.w3.org"}, file.name
