"""The centre's meter: what it counts, whom it stops, and that nobody else notices."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select, update

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.consumer.row import OTHER_ROW, Row
from services.control_plane import effects, metering, quota
from services.control_plane.broker import accounts
from services.control_plane.db import Database
from services.control_plane.tables import Effect, Standing, Usage
from services.meter.meter import Meter
from services.runtime import central_config
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable
from tests.kit import postgres
from tests.kit.centre import DATABASES, PLC_EDGE, Centre
from tests.kit.common import ROOT, until
from tests.kit.dynsec import Accounts, Client, connected
from tests.kit.procs import Service, service

BOX = {"kind": "broker", "role": "box", "site": "caixa-1"}
# A full hour, long ago.
HOUR_MS = 1_764_000_000_000 // 3_600_000 * 3_600_000
OK, DENIED = ("Success", "No matching subscribers"), "Not authorized"


# -- the meter itself, at a clock of its own ---------------------------------------------------


class Bench:
    """A meter on a real database, without broker and process."""

    def __init__(self, database: str) -> None:
        self.centre = Centre(database)
        self.now_ms = HOUR_MS
        self.said: list[tuple[str, str, str]] = []
        self.seq = 0
        for tenant in ("acme", "outra"):
            self.insert(tenant)
        self.meter = self.open()

    def insert(self, tenant: str) -> None:
        from services.control_plane.tables import Credential, Device, Secret, Site, Tenant

        own = {"version": 1, "created_ms": 0, "updated_ms": 0}
        with self.centre.database.writing(None) as session:
            session.add(Tenant(id=tenant, name="", plan_id="free", state="active", **own))
            session.flush()
            session.add(Site(tenant_id=tenant, id="caixa-1", name="", **own))
            session.flush()
            session.add(Device(tenant_id=tenant, id="clp-1", site_id="caixa-1", name="", **own))
            credential = Credential(
                id=f"crd_{tenant}", tenant_id=tenant, kind="broker", name="", role="box",
                site_id="caixa-1", **own,
            )  # fmt: skip
            session.add(credential)
            session.flush()
            session.add(
                Secret(id=f"s{tenant}", credential_id=credential.id, hash="x" * 64, created_ms=0)
            )

    def open(self) -> Meter:
        def say(level: str, code: str, text: str) -> None:
            self.said.append((level, code, text))

        meter = Meter(self.centre.database, self.centre.chain, say, lambda: self.now_ms)
        meter.begin()
        return meter

    def row(self, tenant: str, points: int, late_s: int = 0, plc: str = "clp-1") -> Row:
        self.seq += 1
        values = {f"f{i}": i for i in range(points)}
        ts = self.now_ms - late_s * 1_000
        body = orjson.dumps({"epoch": 1, "seq": self.seq, "ts": ts, "values": values})
        return Row(1, "live", 0, 0, SAMPLE_ROW, plc, tenant, ts, 1, self.seq, body)

    def minute(self, acme: int, outra: int = 400, late_s: int = 0) -> None:
        """One minute, some commits in it."""
        for part in range(4):
            rows = [self.row("acme", acme // 4, late_s), self.row("outra", outra // 4)]
            self.meter.take(rows)
            self.meter.commit(b"{}")
            self.now_ms += 15_000
            if part == 2 and self.seq % 3 == 0:
                self.meter = self.open()  # it was started anew
        self.meter.tick()

    def topics(self, tenant: str) -> set[str]:
        """Which a box of it may publish."""
        with self.centre.database.reading(tenant) as session:
            found = accounts.wanted(session, b"k", tenant, self.now_ms)
        return {topic for _, topic in found.roles[f"{tenant}.caixa-1"]}

    def close(self) -> None:
        self.centre.__exit__(None, None, None)


@pytest.fixture(params=DATABASES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


ALIVE = {"plc/acme/clp-1/heartbeat", "edge/acme/caixa-1/status", "alertas/acme/#"}
ALL = ALIVE | {"plc/acme/clp-1", "plc/acme/clp-1/gap"}


def test_five_minutes_beyond_twice_the_plan_and_the_next_hour(bench: Bench) -> None:
    for _ in range(4):
        bench.minute(acme=1_004)
    assert bench.topics("acme") == ALL
    bench.minute(acme=400)  # it begins anew
    for _ in range(4):
        bench.minute(acme=1_004)
    assert bench.topics("acme") == ALL
    bench.minute(acme=1_004)
    assert bench.topics("acme") == ALIVE
    assert bench.topics("outra") == {t.replace("acme", "outra") for t in ALL}
    codes = [code for _, code, text in bench.said if "acme" in text]
    assert codes == ["quota_warning", "quota_exceeded", "quota_withdrawn"]
    assert [code for _, code, text in bench.said if "outra" in text] == ["quota_warning"]
    with bench.centre.database.reading(None) as session:
        due = session.execute(select(Effect.tenant_id, Effect.due_ms)).all()
    assert sorted(due) == [("acme", bench.now_ms), ("acme", HOUR_MS + 3_600_000)]
    bench.now_ms = HOUR_MS + 3_600_000 - 1
    assert bench.topics("acme") == ALIVE
    bench.now_ms += 1
    assert bench.topics("acme") == ALL, "whether the meter runs or not"
    bench.meter.tick()
    assert bench.said[-1][1] == "quota_returned"
    assert not bench.centre.faults()


def test_a_clock_that_was_a_day_ahead_neither_stops_nor_spares_anybody(bench: Bench) -> None:
    bench.now_ms += 86_400_000
    for _ in range(5):
        bench.minute(acme=1_004)
    assert bench.topics("acme") == ALIVE
    bench.now_ms = HOUR_MS
    for _ in range(4):
        bench.minute(acme=100, outra=40_000)
    allowed = {t.replace("acme", "outra") for t in ALL}
    assert bench.topics("outra") == allowed
    bench.minute(acme=100, outra=40_000)
    assert bench.topics("outra") < allowed, "judged by the minutes that are now"
    assert bench.topics("acme") == ALIVE
    with bench.centre.database.reading(None) as session:
        due = session.scalars(select(Effect.due_ms).where(Effect.tenant_id == "acme")).all()
    assert HOUR_MS + 3_600_000 in due
    bench.now_ms = HOUR_MS + 3_600_000
    assert bench.topics("acme") == ALL, "with the window that is now, not the one of that day"
    bench.meter.tick()
    assert "quota_returned" in [code for _, code, text in bench.said if "acme" in text]
    assert not bench.centre.faults()


def test_a_database_that_does_not_answer_is_waited_for(bench: Bench) -> None:
    away = Database("postgresql://central@127.0.0.1:1/none")
    meter = Meter(away, bench.centre.chain, lambda *_: None, lambda: bench.now_ms)
    with pytest.raises(Unavailable):
        meter.begin()
    meter.take([bench.row("acme", 1)])
    with pytest.raises(Unavailable):
        meter.commit(b"{}")
    away.close()


def test_what_comes_late_counts_and_stops_nobody_as_long_as_it_is_his_own(bench: Bench) -> None:
    bench.minute(acme=400)
    bench.now_ms += 600 * 60_000  # ten hours without a line
    for _ in range(8):
        bench.minute(acme=20_000, late_s=5_000)
    assert bench.topics("acme") == ALL
    for _ in range(12):
        bench.minute(acme=40_000, late_s=5_000)
    assert bench.topics("acme") == ALIVE, "not more than it had left unused"


def test_minutes_hours_and_days_and_what_is_forgotten(bench: Bench) -> None:
    first = [bench.row("acme", 3), bench.row("acme", 5, plc="clp-2")]
    gap = Row(1, "live", 0, 0, GAP_ROW, "clp-1", "acme", bench.now_ms, 1, 9, b'{"first_seq":9}')
    other = Row(1, "live", 0, 0, OTHER_ROW, "clp-1", "acme", bench.now_ms, 0, 0, b"\xff not ours")
    stranger = bench.row("nobody", 7)
    odd = bench.row("acme", 1, plc="X" * 99)
    bench.meter.take([*first, gap, other, stranger, odd])
    bench.meter.commit(orjson.dumps({"acme/clp-1": {"1": [[1, 2]]}, "nobody/x1": {}, "acme/X": {}}))
    body = len(first[0].body)
    with bench.centre.database.reading(None) as session:
        rows = {
            (u.span, u.device_id): (u.points, u.messages, u.bytes)
            for u in session.scalars(select(Usage))
        }
    assert rows["minute", "clp-1"] == (3, 3, body + len(gap.body) + len(other.body))
    for span in metering.SPANS_S:
        assert rows[span, "clp-2"][:2] == (5, 1)
        assert rows[span, "*"][:2] == (1, 1)
        assert rows[span, ""][:2] == (9, 5)
    assert orjson.loads(bench.open().begin()) == {"acme/clp-1": {"1": [[1, 2]]}}
    bench.now_ms += metering.KEPT_S["minute"] * 1_000 + 7_200_000
    bench.minute(acme=4)
    with bench.centre.database.reading(None) as session:
        left = sorted(session.execute(select(Usage.span, Usage.start_s)).all())
    assert [s for span, s in left if span == "minute" and s < bench.now_ms // 1_000 - 120] == []
    assert HOUR_MS // 1_000 in [s for span, s in left if span == "hour"]


# -- the process, at a real broker -------------------------------------------------------------


class World:
    """A broker with TLS, a centre, the meter; two tenants, whose boxes are this test."""

    def __init__(self, centre: Centre, broker: Accounts) -> None:
        self.centre, self.broker = centre, broker
        self.rendered = central_config.render(centre.config)["meter"]
        self.epoch = now_ms()
        self.seqs: dict[str, int] = {}

    def box(self, tenant: str) -> Box:
        made = self.centre.make(f"/v1/tenants/{tenant}/credentials", BOX)
        connected(self.broker, made).close()
        return Box(self.broker, made, tenant)

    def usage(self, tenant: str, span: str = "day") -> tuple[int, int, int]:
        reply = self.centre.call("GET", f"/v1/tenants/{tenant}/usage?span={span}&by=device")
        rows = reply.body["items"]
        return tuple(sum(r[n] for r in rows) for n in ("points", "messages", "bytes"))


class Box:
    """Publishes numbered messages of one PLC, as a box would."""

    def __init__(self, broker: Accounts, made: dict[str, Any], tenant: str) -> None:
        assert broker.authority is not None
        self.topic = f"plc/{tenant}/clp-1"
        self.seq, self.epoch = 0, now_ms()
        self.points = self.messages = self.bytes = 0
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=made["username"], protocol=paho.MQTTv5
        )
        client.username_pw_set(made["username"], made["secret"])
        client.tls_set(str(broker.authority.ca))
        client.reconnect_delay_set(1, 1)
        client.connect(broker.host, broker.port)
        client.loop_start()
        self.client = client

    def send(self, points: int, *, again: int = 0) -> None:
        """A message, and ``again`` repeats of it."""
        self.seq += 1
        values = {f"f{i}": i for i in range(points)}
        message = {"ts": now_ms(), "epoch": self.epoch, "seq": self.seq, "values": values}
        body = orjson.dumps(message)
        self.points, self.messages = self.points + points, self.messages + 1
        self.bytes += len(body)
        for _ in range(1 + again):
            self.client.publish(self.topic, body, qos=1).wait_for_publish(15)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def world(database: str) -> Iterator[World]:
    with Accounts() as broker, Centre(database, broker.section()) as centre:
        for tenant in ("acme", "outra"):
            centre.tenant(tenant)
        yield World(centre, broker)


@contextmanager
def running(w: World, failpoint: str = "") -> Iterator[Service]:
    env = {"PLC_EDGE_FAILPOINT": failpoint} if failpoint else {}
    with service(w.rendered, env) as meter:
        until(
            lambda: meter.process.poll() is not None or meter.said('"output_ok"'), 20, meter.stderr
        )
        yield meter


POINTS = ("taken", "before_commit", "after_commit", "before_receipt")


@pytest.mark.parametrize("database", DATABASES)
def test_killed_anywhere_it_counts_everything_once(database: str) -> None:
    chance = random.Random(database)
    with world(database) as w:
        with running(w):
            pass  # its session is there
        box = w.box("acme")
        for n in range(8):
            with running(w, f"consumer.{POINTS[n % 4]}:{chance.randint(1, 4)}") as doomed:
                deadline_s = time.monotonic() + 30
                while doomed.process.poll() is None:
                    box.send(chance.randint(0, 9), again=chance.randint(0, 1))
                    assert time.monotonic() < deadline_s, doomed.stderr()
        with running(w):
            box.send(3)
            want = (box.points, box.messages, box.bytes)
            until(lambda: w.usage("acme") == want, 20, lambda: f"{w.usage('acme')}, sent {want}")
            time.sleep(1.5)  # another commit adds nothing
            assert w.usage("acme") == want
        assert w.usage("outra") == (0, 0, 0)
        box.close()


def test_its_database_is_away_for_a_while() -> None:
    with world("postgresql") as w, running(w) as meter:
        box = w.box("acme")
        box.send(2)
        until(lambda: w.usage("acme")[1] == 1, 15, meter.stderr)
        cluster = postgres.cluster()
        cluster.kill()
        try:
            for _ in range(6):
                box.send(3)
                time.sleep(0.5)
        finally:
            cluster.start()
        box.send(1)
        want = (box.points, box.messages, box.bytes)
        until(lambda: w.usage("acme") == want, 30, meter.stderr)
        meter.wait_said('"output_database"')
        assert meter.terminate() == 0
        box.close()


def test_what_is_no_message_counts_as_one_and_hurts_nobody() -> None:
    with world("sqlite") as w, running(w) as meter:
        box = w.box("acme")
        nonsense = [
            b"", b"no JSON", b"[]", b"{}", b"\xff\xfe", b'{"ts":1,"epoch":1e30,"seq":1}',
            b'{"ts":1,"epoch":-1,"seq":1}', b'{"ts":1,"epoch":1,"seq":1,"values":[1,2]}',
            b'{"ts":1,"epoch":1,"seq":2,"values":{"a":1},"bad":7}', b'"x"', b"null", b"9" * 400,
        ]  # fmt: skip
        gaps = [
            b'{"ts":1,"epoch":1,"first_seq":5,"last_seq":"x"}',
            b'{"ts":1,"epoch":1,"first_seq":6,"last_seq":1e300}',
            b'{"ts":1,"epoch":1,"first_seq":7,"seqs":[[9]]}',
            b'{"ts":1,"epoch":1,"first_seq":8,"seqs":7}',
            b'{"ts":1,"epoch":1,"first_seq":9,"seqs":[[9,3]],"last_seq":9}',
        ]
        for body in nonsense:
            box.client.publish(box.topic, body, qos=1).wait_for_publish(10)
        for body in gaps:
            box.client.publish(f"{box.topic}/gap", body, qos=1).wait_for_publish(10)
        box.send(4)
        sent = [b for b in nonsense + gaps if b]
        want = (5, len(sent) + 1, sum(map(len, sent)) + box.bytes)
        until(lambda: w.usage("acme") == want, 15, lambda: f"{w.usage('acme')} of {want}")
        assert meter.terminate() == 0
        box.close()


def test_the_centre_runs_it_where_there_is_a_broker(tmp_path: Path) -> None:
    with Accounts() as broker:
        centre = Centre("sqlite", broker.section())
        runtime = centre.config.runtime
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (tmp_path / "log").open("wb") as log:
            running = subprocess.Popen(
                [*PLC_EDGE, "central", "run", "-c", str(centre.file)],
                stdout=log, stderr=log, env=env,
            )  # fmt: skip

        def log_of_meter() -> str:
            return (centre.config.state / "log" / "meter.log").read_text()

        try:
            until(lambda: '"output_ok"' in log_of_meter(), 60, (tmp_path / "log").read_text)
            key = accounts.load_key(centre.config.state)
            for file in (runtime / "conf").glob("*.json"):
                assert accounts.meter_password(key) not in file.read_text()
            os.kill(int((runtime / "meter.lock").read_text()), signal.SIGKILL)
            until(lambda: log_of_meter().count('"output_ok"') > 1, 30, log_of_meter)
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
            centre.__exit__(None, None, None)


def test_its_account_reads_data_and_nothing_else() -> None:
    with world("sqlite") as w, running(w) as meter:
        assert meter.terminate() == 0
        key = accounts.load_key(w.centre.config.state)
        own = Client(w.broker, accounts.METER, accounts.meter_password(key))
        with own:
            assert own.answer() == "Success"
            for topic in ("plc/acme/clp-1", "plc/acme/clp-1/gap", "edge/acme/caixa-1/status"):
                assert own.publish(topic) == DENIED
            granted = {
                topic: own.subscribe(topic)
                for topic in (*accounts.DATA, "plc/#", "#", "edge/#", "plc/+/+/heartbeat",
                              "$CONTROL/dynamic-security/v1/response")
            }  # fmt: skip
            assert {t for t, said in granted.items() if said.startswith("Granted")} == {
                *accounts.DATA
            }
        refused = w.centre.call("POST", "/v1/tenants", {"id": accounts.PLATFORM})
        assert refused.status == 409


@pytest.mark.parametrize("database", DATABASES)
def test_the_right_to_publish_is_withdrawn_and_comes_back(database: str) -> None:
    base = "/v1/tenants/acme/limits"
    with world(database) as w:
        made = {t: w.centre.make(f"/v1/tenants/{t}/credentials", BOX) for t in ("acme", "outra")}
        acme, outra = (connected(w.broker, made[t]) for t in ("acme", "outra"))

        def may(client: Client, tenant: str = "acme") -> bool:
            return client.publish(f"plc/{tenant}/clp-1") in OK

        def kinds() -> list[str]:
            items = w.centre.call("GET", f"{base}/events").body["items"]
            return [event["kind"] for event in items]

        def offend() -> None:
            """As four minutes beyond twice the plan, and the fifth, which is over now."""
            minute_s = now_ms() // 60_000 * 60 - 60
            values = {"minute_s": minute_s, "load": 20 * 5_000, "late": 0, "over_minutes": 4}
            with w.centre.database.writing(None) as session:
                session.execute(
                    update(Standing).where(Standing.tenant_id == "acme").values(**values)
                )

        with running(w):
            assert may(acme)
            assert may(outra, "outra")
            until(lambda: w.usage("acme")[1] == 1, 10, "counted")
        begun_s = now_ms() // 1_000
        offend()
        with running(w):
            until(lambda: not may(acme), 15, lambda: w.centre.call("GET", base).body)
            assert acme.is_connected, "what it is connected for goes on: it is told"
            assert acme.publish("plc/acme/clp-1/heartbeat") in OK
            assert acme.publish("edge/acme/caixa-1/status") in OK
            assert acme.publish("plc/acme/clp-1/gap") == DENIED
            assert may(outra, "outra")
            publish = w.centre.call("GET", base).body["publish"]
            assert publish["state"] == "withdrawn"
            # Of the window in which it was withdrawn, one of two where one has just ended.
            ends = [quota.window(t) + quota.WINDOW_S for t in (begun_s, now_ms() // 1_000)]
            hours = [time.strftime("%Y-%m-%dT%H:00", time.gmtime(end_s)) for end_s in ends]
            assert publish["until"].startswith(tuple(hours))
            # An operator's word.
            assert w.centre.call("POST", f"{base}/release").body["state"] == "allowed"
            until(lambda: may(acme), 10, "published again")
            assert w.centre.call("POST", f"{base}/release").status == 200, "and once more"
        offend()
        with running(w):
            until(lambda: not may(acme), 15, "withdrawn again")
        # The next window, which a test does not wait for.
        with w.centre.database.writing(None) as session:
            at_s = now_ms() // 1_000 + 1
            session.execute(update(Standing).values(withdrawn_until_s=at_s))
            effects.add(session, "broker", "acme", at_s * 1_000)
        until(lambda: may(acme), 15, "published again, without the meter")
        with running(w):
            until(lambda: kinds()[0] == "returned", 10, lambda: str(kinds()))
        assert kinds().count("withdrawn") == 2
        assert "released" in kinds()
        assert kinds().count("warning") <= 2  # one an hour
        reply = w.centre.call("GET", "/v1/tenants/acme/audit?limit=50")
        said = [(a["actor"], a["action"]) for a in reply.body["items"] if "limits" in a["action"]]
        assert [action for _, action in reversed(said)] == [
            "limits.withdraw", "limits.release", "limits.withdraw", "limits.return",
        ]  # fmt: skip
        assert {actor for actor, action in said if action != "limits.release"} == {"meter"}
        assert not w.centre.faults()
        shown = w.centre.cli("usage", "limits", "acme").stdout
        assert "publish: allowed" in shown, shown
        assert "withdrawn" in w.centre.cli("usage", "events", "acme").stdout
        assert outra.is_connected
        for client in (acme, outra):
            client.close()
