"""The Alertmanager form, beside what Debian's Alertmanager sends for the same alert."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3

from services.alerts.alertmanager import NOT_ENDED, fingerprint, payload
from tests.kit.alerts_rig import HIGH, world
from tests.kit.common import free_port, until
from tests.kit.http_sink import HttpSink
from tests.process.alerts.test_process import webhook

ALERTMANAGER = shutil.which("prometheus-alertmanager")
CONFIG = """\
route: {{receiver: fone, group_by: [alertname], group_wait: 0s, group_interval: 1s}}
receivers: [{{name: fone, webhook_configs: [{{url: '{url}'}}]}}]
"""


@contextmanager
def alertmanager(folder: Path, sink: HttpSink) -> Iterator[str]:
    """The real one, telling ``sink``; its address."""
    assert ALERTMANAGER is not None, "install prometheus-alertmanager"
    (folder / "am.yml").write_text(CONFIG.format(url=sink.url))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [ALERTMANAGER, f"--config.file={folder}/am.yml", f"--storage.path={folder}/data",
             f"--web.listen-address={address}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    http = urllib3.PoolManager(retries=False)

    def ready() -> bool:
        try:
            return http.request("GET", f"http://{address}/-/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    try:
        until(ready, 15, lambda: (folder / "log").read_text())
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


def ours(posts: list[Any]) -> list[dict[str, Any]]:
    return [orjson.loads(p.body) for p in posts]


def like(said: Any) -> Any:
    """What programs depend on: keys, and kinds of values; all of a list alike."""
    if isinstance(said, dict):
        return {k: like(v) for k, v in said.items()}
    return [like(x) for x in said[:1]] if isinstance(said, list) else type(said).__name__


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_it_is_what_alertmanager_sends(tmp_path: Path) -> None:
    """Begin and end of two real alarms; Alertmanager is given the same alerts by its API."""
    with HttpSink() as fone, HttpSink() as theirs, alertmanager(tmp_path, theirs) as address:
        with (
            world(webhook("fone", fone, ", format: alertmanager")) as w,
            w.alerts() as alerts,
        ):
            alerts.wait_ready()
            w.feed("p1", 90)
            w.settle()
            until(lambda: len(fone.taken) == 1, 10, alerts.stderr)
            w.feed("p1", 10)
            w.settle()
            until(lambda: len(fone.taken) == 2, 10, alerts.stderr)
        http = urllib3.PoolManager(retries=False)
        for n, said in enumerate(ours(fone.taken), 1):
            (alert,) = said["alerts"]
            given = {k: alert[k] for k in ("labels", "annotations", "startsAt")}
            if said["status"] == "resolved":
                given["endsAt"] = alert["endsAt"]
            answer = http.request("POST", f"{address}/api/v2/alerts", json=[given])
            assert answer.status == 200, answer.data
            until(lambda n=n: len(theirs.taken) == n, 20, lambda: f"{ours(theirs.taken)}")  # type: ignore[misc]
            real = ours(theirs.taken)[-1]
            assert like(said) == like(real)
            (other,) = real["alerts"]
            assert instant(alert["startsAt"]) == instant(other["startsAt"])
            assert instant(alert["endsAt"]) == instant(other["endsAt"])
            for key in ("labels", "annotations", "status", "fingerprint"):
                assert alert[key] == other[key]
            for key in ("receiver", "status", "groupLabels", "commonLabels", "commonAnnotations",
                        "version", "groupKey", "truncatedAlerts"):  # fmt: skip
                assert said[key] == real[key], key
        first, last = ours(fone.taken)
        assert (first["alerts"][0]["endsAt"], first["status"]) == (NOT_ENDED, "firing")
        assert last["alerts"][0]["startsAt"] == first["alerts"][0]["startsAt"]
        assert last["status"] == "resolved"
        assert first["externalURL"].startswith("http://planta-sp:")


def test_a_storm_is_one_message_with_the_last_of_each_alarm() -> None:
    routes = "    turno: {receivers: [fone], group: {wait: 2s, max: 10}}\n"
    rules = HIGH.replace("severity: critica", "severity: critica, route: turno")
    with (
        HttpSink() as fone,
        world(webhook("fone", fone, ", format: alertmanager"), rules, routes) as w,
        w.alerts() as alerts,
    ):
        alerts.wait_ready()
        w.feed("p1", 90)
        w.feed("p2", 91)
        w.feed("p1", 10)
        w.settle()
        until(lambda: len(fone.taken) == 1, 10, alerts.stderr)
        (said,) = ours(fone.taken)
        assert {a["labels"]["plc_id"]: a["status"] for a in said["alerts"]} == {
            "p1": "resolved", "p2": "firing"}  # fmt: skip
        assert said["status"] == "firing"
        assert said["commonLabels"]["field"] == "a"
        assert "plc_id" not in said["commonLabels"]


@pytest.mark.parametrize("count", [3, 2_000])
def test_what_is_not_listed_is_counted(count: int) -> None:
    alarm = {"id": "1", "rule": "a", "to": "disparando", "ts": 1, "text": "x", "began": 1}
    said = payload({"id": "m1", "count": count, "rules": {}, "alerts": [alarm]}, "fone", "")
    assert said["truncatedAlerts"] == count - 1


def test_a_fingerprint_depends_on_labels_alone_and_on_all_of_them() -> None:
    one = fingerprint({"a": "1", "b": "2"})
    assert one == fingerprint({"b": "2", "a": "1"}) != fingerprint({"a": "1b", "": "2"})
