"""The alert engine beside a real store_forward, telling a real HTTP receiver: killed anywhere, what
it says is what an undisturbed run would say, each thing under one id.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import orjson

from services.alerts.receivers import SIGNATURE, TIMESTAMP, signature
from tests.kit.alerts_rig import HIGH, World, world
from tests.kit.common import ROOT, until
from tests.kit.http_sink import Answer, HttpSink, Post

POINTS = ("consumer.taken", "consumer.before_commit", "alerts.saving", "consumer.after_commit",
          "consumer.before_receipt")  # fmt: skip


def webhook(name: str, sink: HttpSink, more: str = "") -> str:
    return f"    - {{name: {name}, type: webhook, url: '{sink.url}', timeout: 500ms{more}}}\n"


def said(posts: list[Post]) -> list[dict[str, Any]]:
    return [orjson.loads(p.body) for p in posts]


def told(w: World) -> set[tuple[str, int, str]]:
    """What HIGH must have told of what was fed."""
    return {(p, ts, to) for p, rows in w.expected.items() for ts, _, to in rows if to != "ok"}


def check(w: World, sink: HttpSink) -> None:
    """History and notifications are those of an undisturbed run, each under one id."""
    w.settle()
    for plc, expected in w.expected.items():
        mine = [(t["ts"], t["from"], t["to"]) for t in w.history() if t["plc_id"] == plc]
        assert mine == expected
    wanted = told(w)

    def heard() -> set[tuple[str, int, str]]:
        return {(n["plc_id"], n["ts"], n["to"]) for n in said(sink.taken)}

    until(lambda: heard() >= wanted, 15, lambda: f"not told: {wanted - heard()}")
    assert heard() == wanted
    ids = {(n["id"], n["plc_id"], n["ts"], n["to"]) for n in said(sink.posts)}
    assert len(ids) == len({i[0] for i in ids}) == len(wanted)
    assert all(p.headers["idempotency-key"] == orjson.loads(p.body)["id"] for p in sink.posts)


def test_killed_anywhere_it_says_what_an_undisturbed_run_says() -> None:
    chance = random.Random(5)
    with HttpSink() as sink, world(webhook("fone", sink)) as w:
        for n in range(8):
            point = f"{POINTS[n % 5]}:{chance.randint(1, 6)}" if n < 6 else ""
            with w.alerts({"PLC_EDGE_FAILPOINT": point}) as doomed:
                end_s = time.monotonic() + (20 if point else chance.uniform(0.8, 1.5))
                while doomed.process.poll() is None and time.monotonic() < end_s:
                    w.feed(chance.choice(("p1", "p2")), chance.choice((10, 90)))
                    time.sleep(0.01)  # the pace of a plant, not a wait
                assert doomed.process.poll() is not None or not point, doomed.stderr()
            if n == 3:
                w.store.kill()
                w.start_store()
        with w.alerts() as alerts:
            alerts.wait_ready()
            check(w, sink)
            assert alerts.terminate() == 0


def test_a_receiver_that_fails_hangs_or_refuses_delays_no_other() -> None:
    seen: list[str] = []

    def fails_then_hangs(post: Post) -> Answer:
        seen.append(post.headers["idempotency-key"])
        if len(seen) == 2:
            time.sleep(1)  # longer than its timeout
        return (503 if len(seen) == 1 else 204), {}, b""

    with HttpSink() as good, HttpSink() as bad, HttpSink() as strict:
        bad.answer = fails_then_hangs
        strict.answer = lambda _: (422, {}, b"")
        receivers = webhook("bom", good, ", secret: chave") + webhook("ruim", bad)
        with (
            world(receivers + webhook("exigente", strict)) as w,
            w.alerts() as alerts,
        ):
            alerts.wait_ready()
            begun_s = time.monotonic()
            w.feed("p1", 90)
            w.settle()
            until(lambda: len(good.taken) == 1, 5, alerts.stderr)
            assert time.monotonic() - begun_s < 10
            (post,) = good.taken
            stamp = post.headers[TIMESTAMP.lower()]
            assert post.headers[SIGNATURE.lower()] == signature("chave", stamp, post.body)
            assert abs(int(stamp) - time.time()) < 30
            assert SIGNATURE.lower() not in strict.posts[0].headers
            until(lambda: len(seen) >= 3, 15, alerts.stderr)
            assert len(set(seen)) == 1
            until(lambda: alerts.said("notification_refused"), 5, alerts.stderr)
            w.feed("p1", 10)  # the refused one holds nothing up
            w.drain()
            until(lambda: len(strict.posts) == 2, 5, alerts.stderr)
            assert not alerts.said("chave")


def test_a_receiver_that_was_away_is_told_after_a_restart() -> None:
    with HttpSink() as sink, world(webhook("fone", sink)) as w:
        sink.answer = lambda _: (503, {}, b"")
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 90)
            w.drain()
            until(lambda: len(sink.posts) > 0, 10, alerts.stderr)
        sink.answer = lambda _: (204, {}, b"")
        with w.alerts():
            check(w, sink)


def test_who_says_nothing_is_missed_and_a_changed_rule_closes_once() -> None:
    rules = "    - {name: mudo, type: absence, where: {plc: p2}, for: 1s}\n"
    with HttpSink() as sink, world(webhook("fone", sink), HIGH + rules) as w:
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 90)
            w.drain()
            until(lambda: len(sink.taken) == 2, 10, alerts.stderr)
        reasons = {n["rule"]: n["reason"] for n in said(sink.taken)}
        assert reasons == {"a-alto": "condition", "mudo": "plc_silent"}
        w.configure(webhook("fone", sink), HIGH.replace("80", "95") + rules)
        for _ in range(2):
            with w.alerts() as alerts:
                alerts.wait_ready()
                w.feed("p1", 91)
                w.drain()
                until(lambda: any(t["rule"] == "a-alto" and t["to"] == "ok" for t in w.history()),
                      10, alerts.stderr)  # fmt: skip
        closed = [t["reason"] for t in w.history() if t["rule"] == "a-alto"]
        assert closed == ["condition", "rule_changed", "rule_changed"]
        roster = w.rendered["alerts"]["roster"]
        w.rendered["alerts"]["roster"] = [row for row in roster if row[2] != "p2"]
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p2", 99)  # was on its way when its PLC left the configuration
            w.feed("p1", 99)
            w.drain()
            until(lambda: w.history()[-1]["value"] == 99, 10, lambda: f"{w.history()}")
        ends = [(t["plc_id"], t["reason"]) for t in w.history() if t["rule"] == "mudo"]
        assert ends == [("p2", "plc_silent"), ("p2", "removed"), ("p2", "removed")]
        assert [t["plc_id"] for t in w.history() if t["rule"] == "a-alto"][3:] == ["p1"]


def plc_edge(w: World, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "services.cli.main", "alerts", *args]
    return subprocess.run(
        [*command, "--config", str(w.file)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_list_acknowledge_and_silence() -> None:
    with HttpSink() as sink, world(webhook("fone", sink)) as w:
        away = plc_edge(w, "list")
        assert (away.returncode, "no alert engine runs" in away.stderr) == (1, True)
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 90)
            w.settle()
            assert "critica a-alto p1/a disparando" in plc_edge(w, "list").stdout
            assert "confirmado: ana" in plc_edge(w, "ack", "a-alto", "--by", "ana").stdout
            quiet = plc_edge(w, "silence", "a-alto", "--for", "1h", "--why", "troca de sensor")
            assert quiet.returncode == 0, quiet.stderr
            assert plc_edge(w, "ack", "b-alto").returncode == 1
            assert plc_edge(w, "silence", "a-alto", "--for", "1", "--why", "x").returncode == 2
        with w.alerts() as alerts:  # both outlive a kill
            alerts.wait_ready()
            answer = orjson.loads(plc_edge(w, "list", "--json", "--history", "5").stdout)
            (one,) = answer["alarms"]
            assert one["confirmado"][0] == "ana"
            assert one["silenciado"][1] == "troca de sensor"
            assert [t["to"] for t in answer["history"]] == ["disparando"]
            w.feed("p1", 10)
            w.feed("p1", 91)
            w.settle()
            reasons = [t["reason"] for t in w.history()[1:]]
            assert reasons == ["silenced", "cooldown_over", "silenced"]
        assert len(sink.taken) == 1


def test_a_damaged_database_is_put_aside() -> None:
    with world() as w:
        (w.run / "alerts").mkdir()
        (w.run / "alerts" / "alerts.db").write_bytes(b"no database" * 1_000)
        with w.alerts() as alerts:
            alerts.wait_ready()
            alerts.wait_said("alerts_damaged")
            w.feed("p1", 90)
            w.settle()
        assert (w.run / "alerts" / "alerts.damaged").exists()


def test_history_says_what_has_changed_and_why() -> None:
    with HttpSink() as sink, world(webhook("fone", sink)) as w, w.alerts() as alerts:
        alerts.wait_ready()
        assert "nothing has changed" in plc_edge(w, "history").stdout
        w.feed("p1", 90)
        w.feed("p2", 91)
        w.feed("p2", 10)
        w.settle()
        lines = plc_edge(w, "history").stdout.splitlines()
        assert len(lines) == 4
        assert "a-alto p2/a resfriando -> ok not told (cooldown_over)" in lines[0]
        assert "a-alto p1/a ok -> disparando told (condition) a-alto: 90" in lines[3]
        one = orjson.loads(plc_edge(w, "history", "--plc", "p2", "-n", "2", "--json").stdout)
        assert [(t["plc_id"], t["to"]) for t in one] == [("p2", "ok"), ("p2", "resfriando")]
        assert plc_edge(w, "history", "--rule", "b").stdout.strip() == "nothing has changed"


def test_replay_tells_what_other_rules_would_have_said_and_nobody_else() -> None:
    """Over the running store, over the stopped one, over an exported file: the same."""
    other = (
        "    - {name: a-medio, type: threshold, where: {field: a}, above: 50}\n"
        "    - {name: mudo, type: absence, where: {plc: p2}, for: 1500ms}\n"
        "    - {name: sem-voz, type: absence, of: heartbeat, where: {plc: p2}, for: 1s}\n"
    )
    with HttpSink() as sink, world(webhook("fone", sink)) as w:
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 60)
            w.feed("p2", 10)
            w.drain()
            for value in (60, 40, 70):
                time.sleep(1)  # p2 is silent meanwhile
                w.feed("p1", value)
            w.drain()
        told_before = len(sink.taken)
        w.configure(webhook("fone", sink), other)
        running = plc_edge(w, "replay", "--json")
        assert running.returncode == 0, running.stderr
        said = [orjson.loads(line) for line in running.stdout.splitlines()]
        steps = [(t["rule"], t["plc_id"], t["to"]) for t in said if t["to"] != "ok"]
        assert steps == [
            ("a-medio", "p1", "disparando"),
            ("mudo", "p2", "disparando"),
            ("a-medio", "p1", "resfriando"),
            ("a-medio", "p1", "disparando"),
        ]
        assert all(t["notify"] for t in said if t["to"] == "disparando")
        assert "left out, heartbeats are not stored: sem-voz" in running.stderr
        assert "5 messages; nobody was told" in running.stderr
        w.store.terminate()
        assert plc_edge(w, "replay", "--json").stdout == running.stdout
        # As `store export` writes them: bare messages.
        file = w.run / "exported.jsonl"
        file.write_bytes(b"\n".join(w.fed))
        assert plc_edge(w, "replay", "--data", str(file), "--json").stdout == running.stdout
        assert len(sink.taken) == told_before
        file.write_text('{"topic": "plc/acme/p1"}\n{"topic": 5}\nx\n')
        bad = plc_edge(w, "replay", "--data", str(file))
        assert (bad.returncode, f"{file}:1:" in bad.stderr) == (2, True), bad.stderr
