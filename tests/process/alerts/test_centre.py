"""The engine at the centre: real broker with accounts and TLS, real control plane, real process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.alerts import centre
from services.control_plane.alerting.asking import ANSWER_S
from services.runtime import central_config, secrets
from services.runtime.clock import now_ms
from services.runtime.process import Process
from tests.kit.central_alerts import DOWN, EPOCH, HIGH, OVER, UP, CentralAlerts, Storm, high, told
from tests.kit.centre import PLC_EDGE, Reply
from tests.kit.common import ROOT, until
from tests.kit.dynsec import connected
from tests.kit.http_sink import HttpSink


@pytest.fixture
def world() -> Iterator[CentralAlerts]:
    with CentralAlerts() as world:
        yield world


def moves(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(t["from"], t["to"]) for t in history]


def test_a_value_rings_is_acknowledged_and_ends(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        ts = box.send(90)
        (alarm,) = world.until(lambda: world.ringing("acme"))
        assert (alarm["rule"], alarm["plc"], alarm["site"]) == ("alto", "clp-1", "caixa-1")
        base = "/v1/tenants/acme/alerts"
        form = {"rule": "alto", "by": "ana"}
        assert world.centre.make(f"{base}/ack", form)["alarms"] == 1
        assert world.ringing("acme")[0]["confirmado"][0] == "ana"
        silence = {"rule": "alto", "for_s": 3_600, "why": "troca do sensor"}
        assert world.centre.make(f"{base}/silence", silence)["alarms"] == 1
        assert world.ringing("acme")[0]["silenciado"][1] == "troca do sensor"
        box.send(10)
        world.until(lambda: not world.ringing("acme"))
        # What rings is asked of the engine, which may be a commit ahead of its history.
        world.until(lambda: len(world.history("acme")) >= 3)
        history = world.history("acme")
        assert moves(history) == [UP, DOWN, OVER]
        assert history[0]["ts"] == ts
        world.until(lambda: sink.taken)
        assert told(sink)[0]["id"] == history[0]["id"]
        for words, shown in (
            (("list", "acme"), "severity"),
            (("history", "acme", "--most", "2"), "cooldown_over"),
            (("silence", "acme", "alto", "--for", "0s", "--why", "pronto", "--by", "ana"), "ana"),
            (("ack", "acme", "alto"), "alarms: 0"),
        ):
            done = world.centre.cli("alerts", *words)
            assert shown in done.stdout, done
        audit = world.centre.call("GET", "/v1/tenants/acme/audit?limit=4").body["items"]
        actions = [row["action"] for row in audit]
        assert actions == ["alert.ack", "alert.silence", "alert.silence", "alert.ack"]
        assert audit[3]["after"]["by"] == "ana"


def test_an_engine_that_does_not_answer_holds_up_no_other_write(world: CentralAlerts) -> None:
    high(world, "acme")
    centre = world.centre
    assert world.alerts is not None
    base = "/v1/tenants/acme/alerts"
    replies: list[Reply] = []

    def ask(n: int) -> None:
        headers = {"idempotency-key": f"k{n}"}
        replies.append(centre.call("POST", f"{base}/ack", {"rule": "alto"}, headers=headers))

    askers = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    os.kill(world.alerts.process.pid, signal.SIGSTOP)
    try:
        for thread in askers:
            thread.start()
        time.sleep(0.2)
        slowest_s = 0.0
        while any(thread.is_alive() for thread in askers):
            begun_s = time.monotonic()
            assert centre.call("PATCH", "/v1/tenants/acme", {"name": "Acme"}).status == 200
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
    finally:
        os.kill(world.alerts.process.pid, signal.SIGCONT)
    assert [r.status for r in replies] == [503] * 4, replies
    # What may still be done is known to the audit; what was not done can be asked for again.
    rows = centre.call("GET", "/v1/tenants/acme/audit?action=alert&limit=9").body["items"]
    assert [row["action"] for row in rows] == ["alert.ack"] * 4
    assert slowest_s < 0.75 * ANSWER_S, "a write waited as long as they did"
    world.until(lambda: centre.call("GET", base).status == 200)
    again = {"idempotency-key": "k0"}
    for replayed in (None, "true"):
        reply = centre.call("POST", f"{base}/ack", {"rule": "alto"}, headers=again)
        assert (reply.status, reply.headers.get("idempotency-replayed")) == (200, replayed)
    assert centre.faults() == []


def test_two_tenants_of_the_same_names_never_meet(world: CentralAlerts) -> None:
    """Rules, history, notifications, and what the broker lets each engine's account have."""
    with HttpSink() as ours, HttpSink() as theirs:
        acme, beta = high(world, "acme", ours), high(world, "beta", theirs)
        for value in (90, 10, 95):
            acme.send(value)
            time.sleep(0.01)
        world.until(lambda: len(world.history("acme")) == 4)
        world.until(lambda: len(ours.taken) == 3)
        assert world.history("beta") == []
        assert world.ringing("beta") == []
        beta.send(99)
        world.until(lambda: theirs.taken)
        assert {n["locatario_id"] for n in told(ours)} == {"acme"}
        assert {n["locatario_id"] for n in told(theirs)} == {"beta"}
        assert len(world.history("beta")) == 1
        # A rule that names the other tenant is refused; one that means all sees its own only.
        foreign = {**HIGH, "where": {"locatario": "acme", "field": "a"}}
        reply = world.centre.call("PUT", "/v1/tenants/beta/rules/espia", foreign)
        assert (reply.status, reply.body["problems"][0]["key"]) == (422, "where.locatario")
        everybody = {**HIGH, "where": {"locatario": "*", "plc": "*", "field": "a"}}
        world.put("beta", "rules", "todos", everybody)
        world.until(lambda: len(world.ringing("beta")) == 1)
        acme.send(10)
        acme.send(97)
        world.until(lambda: len(world.history("acme")) == 7)
        assert {a["rule"] for a in world.ringing("beta")} == {"alto"}
        # What the engine's own account may have at the broker.
        file = world.centre.config.state / "alerts" / "tenants" / "beta.json"
        assert file.stat().st_mode & 0o077 == 0
        content = orjson.loads(file.read_bytes())
        account = content["mqtt"]
        password = secrets.resolve(account["password"])
        assert password not in file.read_text()
        made = {"username": account["username"], "secret": password}
        world.alerts_stop()
        with connected(world.broker, made) as client:
            assert "Granted" in client.subscribe("plc/beta/+")
            for topic in ("plc/acme/+", "plc/+/+", "edge/acme/+/status", "#"):
                assert client.subscribe(topic) == "Not authorized"
            assert client.publish("plc/beta/clp-1") == "Not authorized"


def test_a_secret_is_written_once_and_never_shown_again(world: CentralAlerts) -> None:
    secret, path = "chave-muito-secreta", "caminho-secreto"
    with HttpSink() as sink:
        box = world.tenant("acme")
        hook = {"type": "webhook", "url": f"{sink.url}/{path}", "secret": secret}
        made = world.put("acme", "receivers", "plantao", hook)
        assert made["secrets"] == ["secret", "url"]
        world.put("acme", "rules", "alto", HIGH)
        world.evaluated("acme")
        box.send(90)
        (post,) = world.until(lambda: sink.taken)
        assert post.path == f"/in/{path}"
        assert post.headers["x-plc-edge-signature"].startswith("sha256=")
        for route in ("receivers", "receivers/plantao", "audit"):
            reply = world.centre.call("GET", f"/v1/tenants/acme/{route}")
            assert reply.status == 200
            assert secret not in str(reply.body)
            assert path not in str(reply.body)
        state = world.centre.config.state
        holders = {f.name for f in state.rglob("*") if f.is_file() and secret in _text(f)}
        assert holders == {"receiver.acme.plantao.secret"}
        own = [state / "alerts", *(state / "alerts").glob("secrets/*")]
        for file in (*own, *(state / "alerts").glob("tenants/*")):
            assert file.stat().st_mode & 0o077 == 0, file
        database = world.centre.folder / "central.db"
        for text in (_text(database), _text(database.with_name("central.db-wal"))):
            assert secret not in text
            assert path not in text
        assert world.alerts is not None
        assert world.centre.service is not None
        for line in (*world.alerts.text, *world.centre.service.text):
            assert secret not in line
            assert path not in line


def _text(file: Path) -> str:
    return file.read_bytes().decode("latin-1") if file.exists() else ""


def test_silent_plc_silent_box_and_dead_link_are_told_apart(world: CentralAlerts) -> None:
    """With a real will; a PLC that is registered and never spoke is missed, too."""
    box = world.tenant("acme")
    base = "/v1/tenants/acme"
    world.centre.make(f"{base}/devices", {"id": "clp-2", "site": "caixa-1"})
    world.put("acme", "rules", "mudo", {"type": "absence", "for": "3s"})
    world.evaluated("acme")

    def silent(reason: str) -> set[str]:
        found = [t for t in world.history("acme") if t["reason"] == reason]
        return {t["plc_id"] for t in found if t["to"] == "disparando"}

    end_s = time.monotonic() + 6
    while time.monotonic() < end_s:  # clp-1 speaks, so its box lives; clp-2 does not
        box.send(1)
        time.sleep(0.5)
    world.until(lambda: silent("plc_silent") == {"clp-2"})
    box.send(1)
    world.until(lambda: "clp-1" in silent("box_silent"), 15)  # nobody speaks; the link stands
    box.send(1)
    world.until(lambda: all(a["plc"] != "clp-1" for a in world.ringing("acme")))
    box.die()
    world.until(lambda: "clp-1" in silent("link_down"), 15)
    # Alarms of the box and its link themselves: one cause is told once.
    box.connect()
    box.send(1)
    world.until(lambda: all(a["plc"] != "clp-1" for a in world.ringing("acme")))
    world.put("acme", "rules", "enlace", {"type": "absence", "of": "link", "for": "1s"})
    world.evaluated("acme", rules=2)
    box.die()
    world.until(lambda: any(a["rule"] == "enlace" for a in world.ringing("acme")), 15)


def test_a_day_of_backlog_tells_nobody_and_is_complete(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        day_ms = 86_400_000
        begin, count = now_ms() - day_ms, 400
        for n in range(count):  # every other one fires
            value = 90 if n % 2 == 0 else 10
            box.send(value, ts=begin + n * day_ms // count, replay=True)
        box.send(1)
        world.until(lambda: len(world.history("acme")) >= count // 2 * 3)
        history = world.history("acme")
        assert moves(history) == [UP, DOWN, OVER] * (count // 2)
        assert {t["notify"] for t in history} == {False}
        ts = box.send(90)  # what happens now is told and, a receiver being told in order, no more
        world.until(lambda: sink.taken)
        assert [t["ts"] for t in told(sink)] == [ts]


def test_what_a_box_sends_while_the_process_is_away_is_not_missed(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        world.alerts_stop()
        for value in (90, 10, 91, 11, 92):
            box.send(value)
            time.sleep(0.01)
        world.start()
        world.until(lambda: len(sink.taken) == 5)
        assert moves(world.history("acme")) == [UP, DOWN, OVER, UP, DOWN, OVER, UP]


def test_the_broker_is_away_for_a_while(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        box.send(90)
        world.until(lambda: len(sink.taken) == 1)
        world.broker.stop()
        time.sleep(2)
        world.broker.start()
        until(box.client.is_connected, 15, "the box is back")
        box.send(10)
        world.until(lambda: len(sink.taken) == 2, 30)
        assert moves(world.history("acme")) == [UP, DOWN, OVER]
        assert world.centre.call("GET", "/v1/me").status == 200


def test_engines_begin_and_end_while_the_process_runs(world: CentralAlerts) -> None:
    box = high(world, "acme")
    box.send(90)
    world.until(lambda: world.ringing("acme"))
    alerts = world.alerts
    assert alerts is not None
    accounts = world.broker.accounts
    assert any(".alerts-" in name for name in accounts())
    # Suspended: nobody evaluates, nothing is forgotten.
    world.centre.make("/v1/tenants/acme/suspend", {})
    world.until(lambda: alerts.said('"tenant_ended"'))
    assert not any(".alerts-" in name for name in accounts())
    world.centre.make("/v1/tenants/acme/resume", {})
    world.until(lambda: world.ringing("acme"))
    # A changed rule closes what rang under the old one.
    world.put("acme", "rules", "alto", {**HIGH, "above": 95})
    world.until(lambda: world.history("acme")[-1]["reason"] == "rule_changed")
    assert not world.ringing("acme")
    # Without rules there is no engine, no account, no secret.
    assert world.centre.call("DELETE", "/v1/tenants/acme/rules/alto").status == 204
    state = world.centre.config.state / "alerts"
    world.until(lambda: not list((state / "tenants").iterdir()))
    world.until(lambda: not any(".alerts-" in name for name in accounts()))
    assert list((state / "secrets").iterdir()) == []
    memories = list(state.glob("acme.*.db"))
    assert len(memories) == 1
    # Purged: nothing of it stays.
    assert world.centre.call("DELETE", "/v1/tenants/acme").status == 200
    assert world.centre.call("POST", "/v1/tenants/acme/purge").status == 204
    world.until(lambda: not list(state.glob("acme.*")))
    world.until(lambda: not list((state / "tenants").iterdir()))
    assert alerts.process.poll() is None, "one process for all that time"


DIGITS = "9" * 400


def test_what_one_tenant_sends_ends_nobody(world: CentralAlerts) -> None:
    """Neither the others' engines nor its own, nor does it in the next start: what is retained
    comes again.
    """
    acme, beta = high(world, "acme"), high(world, "beta")
    process = world.alerts
    assert process is not None
    deep = orjson.loads("[" * 200 + "]" * 200)
    messages: list[dict[str, Any]] = [
        {"bad": True}, {"bad": [[1]]}, {"values": {"a": DIGITS}}, {"values": {"a": deep}},
        {"group": deep}, {"ts": 2**52}, {"values": {"a": {"b": 1}}},
    ]  # fmt: skip
    for n, odd in enumerate(messages):
        acme.send(1, epoch=EPOCH - 1, seq=n + 1, **odd)
    beats: list[dict[str, Any]] = [
        {"ts": 1e30}, {"interval_s": 1e20}, {"failure": {"code": deep}}, {"ts": [1]},
    ]  # fmt: skip
    for odd in beats:
        acme.beat(**odd)
    acme.publish("edge/acme/caixa-1/status", {"status": "online", "ts": 1e30}, retain=True)
    acme.beat(interval_s=1e20)
    for box in (acme, beta):
        box.send(90)
        world.until(lambda box=box: world.ringing(box.tenant))  # type: ignore[misc]
    assert process.process.poll() is None
    assert process.said('"alerts_bad_message"')
    assert not process.said('"tenant_failed"')
    world.alerts_stop()
    process = world.start()
    for box in (acme, beta):
        box.send(10)
        world.until(lambda box=box: not world.ringing(box.tenant))  # type: ignore[misc]
    assert process.process.poll() is None
    assert not process.said('"tenant_failed"')


def test_an_engine_that_fails_ends_alone_and_begins_anew(
    world: CentralAlerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with a pause that a test can wait for."""
    monkeypatch.setattr(centre, "AGAIN_S", 1.5)
    acme, beta = high(world, "acme"), high(world, "beta")
    world.alerts_stop()
    state = world.centre.config.state / "alerts"
    (secret,) = [f for f in (state / "secrets").iterdir() if "acme" in f.name]
    aside = secret.with_name("aside")
    secret.rename(aside)
    config = central_config.render(world.centre.config)["alerts"]
    process = Process(config, world.folder / "alerts.json")
    tenants = centre.Tenants(process)

    def turn(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s
            process.step()

    def rings(tenant: str) -> bool:
        running = tenants._running.get(tenant)
        return running is not None and running._alarms is not None and bool(running._alarms.count())

    def tries(count: int) -> None:
        """So many more attempts."""
        for _ in range(count):
            due_s = tenants._again_s["acme"]
            turn(lambda due_s=due_s: tenants._again_s["acme"] != due_s)  # type: ignore[misc]

    # It cannot begin: what an attempt had opened is closed.
    assert tenants._running.keys() == {"beta"}
    tries(1)
    gc.collect()
    opened, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    tries(2)
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (opened, threads)
    beta.send(90)
    turn(lambda: rings("beta"))
    aside.rename(secret)
    turn(lambda: "acme" in tenants._running)
    # It runs, and fails with what came: that comes again to the next.
    alarms = tenants._running["acme"]._alarms
    assert alarms is not None
    alarms._memory.close()
    acme.send(90)
    turn(lambda: "acme" not in tenants._running)
    assert rings("beta")
    turn(lambda: rings("acme"))
    beta.send(10)
    turn(lambda: not rings("beta"))
    tenants.close()
    process.bus.close()


POINTS = ("consumer.taken", "consumer.before_commit", "alerts.saving", "consumer.after_commit",
          "consumer.before_receipt")  # fmt: skip


def test_killed_anywhere_in_a_storm_nothing_is_missed_and_each_has_one_id(
    world: CentralAlerts,
) -> None:
    with HttpSink() as ours, HttpSink() as theirs:
        storm = Storm([high(world, "acme", ours), high(world, "beta", theirs)])
        world.alerts_stop()
        for n in range(10):
            point = f"{POINTS[n % 5]}:{storm.chance.randint(1, 6)}" if n < 8 else ""
            doomed = world.start({"PLC_EDGE_FAILPOINT": point} if point else None)
            end_s = time.monotonic() + (20 if point else storm.chance.uniform(0.8, 1.5))
            while doomed.process.poll() is None and time.monotonic() < end_s:
                storm.step()
                time.sleep(0.003)  # the pace of a plant, not a wait
            assert doomed.process.poll() is not None or not point, doomed.stderr()
            doomed.kill()
        world.start()
        storm.check(world, "acme", ours)
        storm.check(world, "beta", theirs)


def test_receivers_reach_nothing_that_only_this_machine_can(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        world.alerts_stop()
        file = world.centre.file
        file.write_text(file.read_text().replace("alert_receivers: any", "alert_receivers: public"))
        world.centre.reload()
        alerts = world.start()
        box.send(90)
        world.until(lambda: alerts.said('"receiver_failed"'))
        assert sink.posts == []
        world.alerts_stop()
        file.write_text(file.read_text().replace("alert_receivers: public", "alert_receivers: any"))
        world.centre.reload()
        world.start()
        world.until(lambda: sink.taken)


def test_plc_edge_central_runs_it_under_supervisord(world: CentralAlerts) -> None:
    """Killed, it is back; stopped, it ends with the others."""
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        world.alerts_stop()
        service = world.centre.service
        assert service is not None
        assert service.terminate() == 0
        log = world.folder / "run.log"
        command = [*PLC_EDGE, "central", "run", "-c", str(world.centre.file)]
        with log.open("wb") as out:
            running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        lock = world.centre.config.runtime / "alerts.lock"
        try:
            box.send(90)
            until(lambda: len(sink.taken) == 1, 40, log.read_text)
            os.kill(int(lock.read_text()), signal.SIGKILL)
            box.send(10)
            until(lambda: len(sink.taken) == 2, 30, log.read_text)
            world.until(lambda: world.ringing("acme") == [])
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
