"""The publisher process with a real Mosquitto and a store at the other end of the real bus."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus.frames import GAP_ROW, Heartbeat, State, Stats
from bus.sockets import Bus
from services.runtime.clock import now_ms
from tests.kit.broker import Authority, Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.pki import encrypt
from tests.kit.procs import service
from tests.kit.publisher_rig import PLC, TOPIC, mqtt_config, run_folder

STATUS = "edge/acme/planta-sp/status"
BEAT = f"{TOPIC}/heartbeat"
ALL = ("plc/#", "edge/#")


@pytest.mark.parametrize("version", [5, "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order_with_their_identity(version: object, qos: int) -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(*ALL) as seen,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, version=version, qos=qos)) as publisher,
    ):
        peer.add(500)
        peer.add(1, kind=GAP_ROW)
        peer.wait_done(10)

        # At QoS 0 nobody says that it has arrived: look until all has, the gap last.
        def came() -> list[bytes]:
            return seen.topic(TOPIC) + seen.topic(f"{TOPIC}/gap")

        until(lambda: len(came()) == 501, 5, "all seen")
        check(peer, came(), 100, 0)
        assert orjson.loads(seen.topic(f"{TOPIC}/gap")[0])["reason"] == "full"
        assert not any(retain for topic, _, retain, _ in seen.messages if topic == TOPIC)
        if version == 5:
            properties = next(p for t, _, _, p in seen.messages if t == TOPIC)
            assert properties.UserProperty == [
                ("plc_id", "prensa-01"),
                ("epoch", str(peer.epoch)),
                ("seq", "1"),
            ]
            assert properties.PayloadFormatIndicator == 1
        assert peer.most_unreceipted <= 100
        assert publisher.terminate() == 0


def test_birth_will_and_goodbye() -> None:
    def statuses() -> list[dict[str, object]]:
        return [orjson.loads(p) for p in seen.topic(STATUS)]

    with run_folder() as run, Broker() as broker, broker.subscribe(*ALL) as seen:
        config = mqtt_config(run, broker.port)
        with service(config) as publisher:
            until(lambda: len(statuses()) == 1, 5, publisher.stderr)
            assert statuses()[0].keys() == {"v", "site", "status", "ts"}
            assert (statuses()[0]["status"], statuses()[0]["site"]) == ("online", "planta-sp")
            publisher.kill()
            until(lambda: len(statuses()) == 2, 5, "the will")
            assert statuses()[1] == {"v": 1, "site": "planta-sp", "status": "offline"}
        with service(config) as publisher:
            until(lambda: len(statuses()) == 3, 5, publisher.stderr)
            assert publisher.terminate() == 0
            until(lambda: len(statuses()) == 4, 5, "goodbye")
            assert statuses()[3]["status"] == "offline"
            assert "ts" in statuses()[3]
        with broker.subscribe(STATUS) as later:
            until(lambda: later.messages, 5, "retained")
            assert orjson.loads(later.messages[0][1])["status"] == "offline"
            time.sleep(0.3)
            assert len(statuses()) == 4, "the will came although goodbye was said"


def _beat(status: str = "online", **fields: object) -> Heartbeat:
    beat = Heartbeat(
        "prensa-01", "acme", "192.168.0.10", now_ms(), 0.5, status, 3.1, 2.4, 10, 0, 60.0, 2
    )
    for name, value in fields.items():
        setattr(beat, name, value)
    return beat


def test_heartbeats_are_retained_and_a_silent_reader_is_offline() -> None:
    plc = {**PLC, "heartbeat_s": 0.5}
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(*ALL) as seen,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, plcs=[plc])) as publisher,
    ):
        until(lambda: peer.sessions, 5, publisher.stderr)
        beat = _beat()
        peer.beat(beat)
        until(lambda: seen.topic(BEAT), 5, publisher.stderr)
        assert orjson.loads(seen.topic(BEAT)[0]) == {
            "v": 1,
            "site": "planta-sp",
            "locatario_id": "acme",
            "plc_id": "prensa-01",
            "ip": "192.168.0.10",
            "ts": beat.ts_ms,
            "interval_s": 0.5,
            "status": "online",
            "scan_ms": 3.1,
            "latency_ms": 2.4,
            "reads_ok": 10,
            "reads_failed": 0,
            "uptime_s": 60.0,
            "pending": 2,
        }
        until(lambda: len(seen.topic(BEAT)) > 1, 5, "offline after three silent intervals")
        offline = orjson.loads(seen.topic(BEAT)[1])
        assert offline["status"] == "offline"
        assert offline["failure"]["code"] == "reader_silent"
        assert offline["ts"] - beat.ts_ms >= 1_400
        peer.beat(_beat("degraded", failure={"code": "field", "message": "one bad field"}))

        def degraded() -> list[dict[str, Any]]:
            beats = [orjson.loads(payload) for payload in seen.topic(BEAT)]
            return [b for b in beats if b["status"] == "degraded"]

        assert until(degraded, 5, "the reader is back")[0]["failure"]["code"] == "field"
        with broker.subscribe(BEAT) as later:
            until(lambda: later.messages, 5, "retained")
            assert later.messages[0][2]


def test_plcs_come_and_go_without_a_restart() -> None:
    second = {**PLC, "id": "forno-02", "heartbeat_s": 0.5}
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(*ALL) as seen,
        DispatchPeer(run, "central") as peer,
    ):
        config = mqtt_config(run, broker.port, plcs=[{**PLC, "heartbeat_s": 0.5}])
        with service(config) as publisher:
            until(lambda: peer.sessions, 5, publisher.stderr)
            peer.beat(_beat())
            until(lambda: seen.topic(BEAT), 5, publisher.stderr)
            publisher.configure({**config, "plcs": [second]})
            until(lambda: b"" in seen.topic(BEAT), 5, "the removed PLC's message is cleared")
            until(lambda: publisher.said("configuration read again"), 5, publisher.stderr)
            peer.beat(_beat(plc="forno-02"))
            until(lambda: seen.topic("plc/acme/forno-02/heartbeat"), 5, publisher.stderr)
            with broker.subscribe(BEAT, STATUS) as later:
                until(lambda: later.messages, 5, "retained")
                assert [t for t, *_ in later.messages] == [STATUS]
            assert len(peer.sessions) == 1


def test_an_encrypted_key_is_named_and_taken_up_when_mended() -> None:
    """OpenSSL itself would ask for the passphrase on the terminal, and wait for ever."""
    with (
        run_folder() as run,
        Broker(tls=True, client_certificates=True) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        assert broker.authority is not None
        cert, key = broker.authority.issue("edge")
        good = Path(key).read_bytes()
        tls = {"ca": str(broker.authority.ca), "cert": cert, "key": encrypt(key)}
        with service(mqtt_config(run, broker.port, tls=tls)) as publisher:
            peer.add(5)
            until(lambda: publisher.said(f"{key} is encrypted"), 5, publisher.stderr)
            publisher.wait_said("openssl pkey")
            Path(key).write_bytes(good)
            peer.wait_done(10)
            assert publisher.terminate() == 0


def test_tls_with_client_certificate_password_and_rotation() -> None:
    with (
        run_folder() as run,
        Broker(tls=True, client_certificates=True, users={"edge": "right"}) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        assert broker.authority is not None
        cert, key = broker.authority.issue("box")
        secret = run / "mqtt.pw"
        secret.write_text("wrong\n")
        tls = {"ca": str(broker.authority.ca), "cert": cert, "key": key}
        config = mqtt_config(
            run, broker.port, tls=tls, username="edge", password={"file": str(secret)}
        )
        peer.add(50)
        with broker.subscribe(*ALL) as seen, service(config) as publisher:
            until(lambda: publisher.said("check username, password"), 10, publisher.stderr)
            secret.write_text("right\n")
            peer.wait_done(10)
            until(lambda: len(seen.topic(TOPIC)) == 50, 5, "all seen")
            assert not peer.refused
            assert "wrong" not in "\n".join(publisher.text)
            assert "right" not in "\n".join(publisher.text)
            assert b"right" not in Path(f"/proc/{publisher.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_refused_at_login_is_told_as_credentials(version: object) -> None:
    """Mosquitto answers a wrong password with "not authorized", as it does a forbidden topic."""
    with (
        run_folder() as run,
        Broker(users={"edge": "right"}) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        secret = run / "mqtt.pw"
        secret.write_text("wrong")
        config = mqtt_config(
            run, broker.port, version=version, username="edge", password={"file": str(secret)}
        )
        with service(config) as publisher:
            peer.add(5)
            until(lambda: publisher.said("refuses the credentials, not authorized"), 5, "said")
            publisher.wait_said('"output_auth"')
            assert not publisher.said('"output_acl"')
            assert publisher.terminate() == 0


@pytest.mark.parametrize(
    ("flaw", "code", "mend"),
    [
        ("other ca", "ca", "set `tls.ca` to the certificate of the CA"),
        ("other name", "certificate_name", "set `host:` to a name that stands in the certificate"),
        ("expired", "certificate_expired", "renew it on the server"),
        ("no file", "tls", "absent.pem"),
        ("plain port", "no_tls", "set `port:` to the broker's TLS port (usually 8883), or `tls: f"),
    ],
)
def test_a_broker_that_cannot_prove_itself_gets_nothing(flaw: str, code: str, mend: str) -> None:
    with run_folder() as run, Broker(tls=flaw != "plain port") as broker:
        folder = run / "pki"
        folder.mkdir()
        authority = broker.authority or Authority(folder)
        ca, hosts = authority.ca, ["127.0.0.1"]
        if flaw == "other ca":
            ca = Authority(folder).ca
        elif flaw == "other name":
            authority.issue("localhost", host="127.0.0.9")
            broker.stop()
            broker.start()
        elif flaw == "expired":
            authority.issue("localhost", days=-1)
            broker.stop()
            broker.start()
        elif flaw == "no file":
            ca = folder / "absent.pem"
        tls = {"ca": str(ca), "cert": None, "key": None}
        with (
            DispatchPeer(run, "central") as peer,
            service(mqtt_config(run, broker.port, tls=tls, hosts=hosts)) as publisher,
        ):
            peer.add(3)
            until(lambda: publisher.said(f'"output_{code}"'), 10, publisher.stderr)
            publisher.wait_said(mend)
            assert not peer.settled
            assert publisher.terminate() == 0


def test_one_connection_per_tenant_each_with_its_account() -> None:
    acl = "user a\ntopic write plc/acme/#\ntopic write edge/acme/#\n"
    acl += "user b\ntopic write plc/beta/#\ntopic write edge/beta/#\nuser watch\ntopic read #\n"
    plcs = [PLC, {**PLC, "id": "forno-02", "locatario": "beta"}]
    with (
        run_folder() as run,
        Broker(
            users={"a": "pa", "b": "pb"}, acl=acl, options="use_username_as_clientid true"
        ) as broker,
        broker.subscribe(*ALL) as seen,
        DispatchPeer(run, "central") as peer,
    ):
        for name in ("pa", "pb"):
            (run / name).write_text(name)
        config = mqtt_config(
            run,
            broker.port,
            plcs=plcs,
            username="a",
            password={"file": str(run / "pa")},
            accounts={"beta": {"username": "b", "password": {"file": str(run / "pb")}}},
        )
        with service(config) as publisher:
            for _ in range(20):
                peer.add(3)
                peer.add(2, plc="forno-02", locatario="beta")
            peer.wait_done(10)
            until(lambda: len(seen.topic("plc/beta/forno-02")) == 40, 5, publisher.stderr)
            until(lambda: len(seen.topic(TOPIC)) == 60, 5, publisher.stderr)
            check(peer, seen.topic(TOPIC) + seen.topic("plc/beta/forno-02"), 100, 0)
            assert len(seen.topic("edge/beta/planta-sp/status")) == 1
            assert len(seen.topic(STATUS)) == 1


def test_a_denied_topic_is_held_and_goes_out_once_it_is_allowed() -> None:
    users = {"edge": "pw"}
    rest = "user watch\ntopic read #\n"
    with (
        run_folder() as run,
        Broker(users=users, acl=f"user edge\ntopic write edge/#\n{rest}") as broker,
        broker.subscribe(*ALL) as seen,
        DispatchPeer(run, "central") as peer,
    ):
        (run / "pw").write_text("pw")
        config = mqtt_config(run, broker.port, username="edge", password={"file": str(run / "pw")})
        peer.add(300)
        with service(config) as publisher:
            until(lambda: publisher.said('"output_acl"'), 10, publisher.stderr)
            publisher.wait_said(
                f"refuses {TOPIC}: not authorized (0x87): the account's access rules"
            )
            assert not peer.settled
            broker.set_acl(f"user edge\ntopic write edge/#\ntopic write plc/acme/#\n{rest}")
            broker.reload()
            peer.wait_done(10)
            until(lambda: len(seen.topic(TOPIC)) >= 300, 5, "all seen")
            check(peer, seen.topic(TOPIC), 0, 0)
            assert not peer.refused
            until(lambda: publisher.lines[-1].get("code") == "output_ok", 5, publisher.stderr)


def test_failover_to_the_next_host() -> None:
    with (
        run_folder() as run,
        Broker() as first,
        Broker(port=first.port, host="127.0.0.2") as second,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, first.port, hosts=["127.0.0.1", "127.0.0.2"])) as publisher,
    ):
        peer.add(10)
        peer.wait_done(10)
        first.stop(kill=True)
        peer.add(10)
        peer.wait_done(10)
        assert "New client connected" in second.log()
        second.stop(kill=True)
        first.start()
        peer.add(10)
        peer.wait_done(10)
        assert publisher.terminate() == 0


def test_the_store_is_killed_and_forgets_the_session() -> None:
    """What comes again and was settled is receipted, not sent; what flies is not doubled."""
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(TOPIC) as seen,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port)),
    ):
        for _ in range(5):
            peer.add(200)
            until(lambda: peer.settled > len(peer.rows) - 150, 5, "under way")
            peer.settled = max(0, peer.settled - 30)
            peer.restart()
            peer.wait_done(10)
        until(lambda: len(seen.topic(TOPIC)) >= 1_000, 5, "all seen")
        check(peer, seen.topic(TOPIC), 0, 0)
        assert len(set(peer.sessions)) == 1


def test_a_store_that_counts_anew_gets_a_new_session() -> None:
    """Its files are lost: positions begin again with other rows, which must not be receipted
    unsent."""
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(TOPIC) as seen,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port)),
    ):
        peer.add(50)
        peer.wait_done(10)
        until(lambda: len(seen.topic(TOPIC)) == 50, 5, "all seen")
        peer.rows.clear()
        peer.settled = 0
        peer.epoch += 1_000
        peer.restart()
        peer.add(80)
        peer.wait_done(10)
        until(lambda: len(seen.topic(TOPIC)) == 130, 5, "all seen")
        check(peer, seen.topic(TOPIC)[50:], 0, 0)
        assert len(set(peer.sessions)) == 2


@pytest.mark.parametrize(
    "point", ["consumer.taken:3", "publisher.acked:3", "consumer.before_receipt:3"]
)
def test_killed_at_a_named_point(point: str) -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(TOPIC) as seen,
        DispatchPeer(run, "central") as peer,
    ):
        config = mqtt_config(run, broker.port)
        with service(config, env={"PLC_EDGE_FAILPOINT": point}) as doomed:
            for _ in range(200):
                peer.add(5)
                time.sleep(0.005)
            assert doomed.process.wait(10) == -signal.SIGKILL
        with service(config):
            peer.wait_done(10)
            until(lambda: len(set(seen.topic(TOPIC))) == 1_000, 5, "all seen")
            check(peer, seen.topic(TOPIC), 100, 1)


def test_sigterm_waits_for_what_is_in_flight() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(TOPIC, STATUS) as seen,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port)) as publisher,
    ):
        peer.add(2_000)
        until(lambda: peer.settled > 100, 5, "under way")
        begin_s = time.monotonic()
        assert publisher.terminate() == 0
        assert time.monotonic() - begin_s < 5
        # A broker keeps the order: nothing of this publisher comes after its goodbye.
        until(lambda: len(seen.topic(STATUS)) == 2, 5, "goodbye")
        sent = len(seen.topic(TOPIC))
        until(
            lambda: peer.settled >= sent,
            5,
            lambda: f"goodbye with messages unsettled: {peer.settled} of {sent} are settled",
        )
        assert peer.settled == sent, "settled and not sent"
        with service(mqtt_config(run, broker.port)):
            peer.wait_done(10)
            until(lambda: len(seen.topic(TOPIC)) >= 2_000, 5, "all seen")
            check(peer, seen.topic(TOPIC), 0, 0)


def test_what_it_says_of_itself() -> None:
    """State frames and statistics on the live wire, as ``metrics`` gets them."""
    with run_folder() as run, Broker() as broker, DispatchPeer(run, "central") as peer:
        bus = Bus(run)
        live = bus.bind("live")
        live.subscribe(b"")
        states: list[State] = []
        samples: dict[tuple[str, str], Any] = {}

        def listen() -> None:
            while (frame := live.receive()) is not None:
                if isinstance(frame, State):
                    states.append(frame)
                elif isinstance(frame, Stats):
                    for _, name, labels, value in frame.samples:
                        samples[name, labels.get("result", "")] = value

        def said(status: str) -> bool:
            listen()
            return any(s.status == status for s in states)

        def published() -> int:
            listen()
            return int(samples.get(("plc_edge_published_total", "ok"), 0))

        def fault() -> Any:
            listen()
            return states[-1].fields.get("code")

        try:
            with service(mqtt_config(run, broker.port)) as publisher:
                peer.add(40)
                until(lambda: said("ok"), 5, publisher.stderr)
                until(
                    lambda: published() == 40,
                    5,
                    publisher.stderr,
                )
                counts = samples["plc_edge_publish_latency_seconds", ""]["buckets"]
                assert sum(count for _, count in counts) == 40
                ok = next(s for s in states if s.status == "ok")
                assert ok.fields["target"] == f"mqtt://127.0.0.1:{broker.port}"
                assert (ok.fields["connected"], ok.fields["connections"]) == (1, 1)
                assert ok.fields.keys() >= {"in_flight", "rate", "host"}
                broker.stop(kill=True)
                until(lambda: said("down"), 5, publisher.stderr)
                until(
                    lambda: fault() == "refused",
                    5,
                    lambda: str(states[-1]),
                )
                assert "refuses the connection" in states[-1].fields["message"]
                assert abs(states[-1].fields["since"] - now_ms()) < 10_000
        finally:
            bus.close()
