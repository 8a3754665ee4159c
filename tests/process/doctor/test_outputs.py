"""Faults on the way to a broker or server: doctor names each, and its fix."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from services.cli.doctor import examine
from services.cli.doctor_finding import Finding
from services.runtime import loader
from tests.kit.broker import Broker
from tests.kit.common import free_port, until
from tests.kit.http_sink import HttpSink
from tests.kit.metrics_rig import Rig
from tests.kit.pki import Ca, encrypt
from tests.process.doctor.kit import config, fault, findings, mosquitto, mqtt, write


def ask(folder: Path, output: dict[str, Any], **more: Any) -> list[Finding]:
    """The findings about one output."""
    found = findings(folder, config(folder, outputs=[output], **more))
    return [f for f in found if f.subject.startswith("output ")]


def codes(found: list[Finding]) -> list[tuple[str, str]]:
    return [(f.level, f.code) for f in found]


def test_a_good_broker(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        found = ask(tmp_path, mqtt(tmp_path, port))
    assert codes(found) == [("ok", "login"), ("ok", "acl")]
    assert "2 topics" in found[1].text


def test_an_edge_node_and_its_topics(tmp_path: Path) -> None:
    acl = "user edge\ntopic readwrite spBv1.0/acme/+/planta-sp\n"
    with Broker(users={"edge": "segredo"}, acl=acl) as broker:
        output = mqtt(tmp_path, broker.port)
        found = ask(tmp_path, {**output, "type": "sparkplug"})
    refused = fault(found, "acl")
    assert "spBv1.0/acme/DDATA/planta-sp/prensa-01" in refused.text
    assert "NBIRTH" not in refused.text
    assert "docs/sparkplug.md" in refused.fix


def test_wrong_password(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, "errado")), "login")
    assert found.level == "error"
    assert "refuses user edge or the password" in found.text
    assert "password_file" in found.fix
    assert "errado" not in str(found)


def test_wrong_password_in_mqtt_3(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        found = ask(tmp_path, mqtt(tmp_path, port, "errado", version="3.1.1"))
        assert codes(found) == [("error", "login")]
        found = ask(tmp_path, mqtt(tmp_path, port, version="3.1.1"))
    assert codes(found) == [("ok", "login"), ("warning", "acl_unknown")]


def test_acl_forbids_a_topic(tmp_path: Path) -> None:
    data = config(tmp_path)
    second = {**data["plcs"][0], "id": "forno-02", "port": free_port()}
    with mosquitto(tmp_path) as port:
        found = ask(tmp_path, mqtt(tmp_path, port), plcs=[data["plcs"][0], second])
    acl = fault(found, "acl")
    assert acl.text == "user edge may not publish to plc/acme/forno-02"
    assert "ACL" in acl.fix


def test_no_subscriber_sees_anything_of_it(tmp_path: Path) -> None:
    """What a consumer gets is data: an empty message is a bad one to Telegraf."""
    acl = "user edge\ntopic write plc/acme/prensa-01\ntopic write edge/acme/planta-sp/status\n"
    acl += "user watch\ntopic read #\n"
    with (
        Broker(users={"edge": "segredo"}, acl=acl) as broker,
        broker.subscribe("#") as seen,
    ):
        assert codes(ask(tmp_path, mqtt(tmp_path, broker.port)))[-1] == ("ok", "acl")
        # The broker keeps order: what comes after all that doctor did is the first we see.
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set("edge", "segredo")
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        client.publish("plc/acme/prensa-01", b"data", qos=1).wait_for_publish(10)
        until(lambda: seen.messages, 10, "seen")
        client.disconnect()
        client.loop_stop()
        assert [(topic, payload) for topic, payload, *_ in seen.messages] == [
            ("plc/acme/prensa-01", b"data")
        ]
        assert not seen.gaps


def test_more_topics_than_the_broker_takes_at_once(tmp_path: Path) -> None:
    first = config(tmp_path)["plcs"][0]
    plcs = [{**first, "id": f"prensa-{n:02d}", "port": free_port()} for n in range(12)]
    with Broker(options="max_inflight_messages 5") as broker, broker.subscribe("#") as seen:
        found = ask(tmp_path, mqtt(tmp_path, broker.port), plcs=plcs)
        assert codes(found) == [("ok", "login"), ("ok", "acl")]
        assert "13 topics" in found[1].text
        assert not seen.messages


def test_a_broker_without_qos_2_is_not_asked(tmp_path: Path) -> None:
    with Broker(options="max_qos 1") as broker, broker.subscribe("#") as seen:
        found = ask(tmp_path, mqtt(tmp_path, broker.port))
        assert codes(found) == [("ok", "login"), ("warning", "acl_unknown")]
        assert "up to QoS 1" in found[1].text
        assert not seen.messages


def test_an_account_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "doctor.pw"
    secret.write_text("segredo")
    with mosquitto(tmp_path) as port:
        output = mqtt(tmp_path, port, "errado")
        output["doctor"] = {"username": "edge", "password_file": str(secret)}
        assert codes(ask(tmp_path, output)) == [("ok", "login"), ("ok", "acl")]
        secret.unlink()
        assert "cannot be read" in fault(ask(tmp_path, output), "secret").text


def test_what_the_running_publisher_says_is_told(tmp_path: Path) -> None:
    with Rig(plcs=1) as rig, mosquitto(tmp_path) as port:
        rig.tell(
            output="central", status="down", pending=7,
            fields={"code": "acl", "message": "broker refuses plc/acme/prensa-01"},
        )  # fmt: skip
        until(lambda: rig.problem("output_acl"), 10, "told")
        data = config(tmp_path, outputs=[mqtt(tmp_path, port)])
        data["paths"]["runtime"] = str(rig.folder)
        found = fault(findings(tmp_path, data), "publisher_acl")
    assert "broker refuses plc/acme/prensa-01; 7 messages wait" in found.text


def test_port_blocked(tmp_path: Path) -> None:
    found = fault(ask(tmp_path, mqtt(tmp_path, free_port())), "refused")
    assert "firewall" in found.fix


def test_name_unknown(tmp_path: Path) -> None:
    output = mqtt(tmp_path, 1883) | {"host": "broker.invalid"}
    found = fault(ask(tmp_path, output), "dns")
    assert "broker.invalid" in found.text
    assert "DNS" in found.fix


def test_something_else_listens_there(tmp_path: Path) -> None:
    with http(lambda _: (200, {})) as port:
        (found,) = ask(tmp_path, mqtt(tmp_path, port))
    assert found.level == "error"
    assert found.code in ("not_mqtt", "closed")
    assert "port" in found.fix or "certificate" in found.fix


# -- TLS ----------------------------------------------------------------------------------


@contextmanager
def tls_broker(folder: Path, certificate: tuple[str, str], *lines: str) -> Iterator[int]:
    lines = (f"certfile {certificate[0]}", f"keyfile {certificate[1]}", *lines)
    with mosquitto(folder, *lines) as port:
        yield port


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


def test_good_tls(tmp_path: Path, ca: Ca) -> None:
    with tls_broker(tmp_path, ca.issue("localhost")) as port:
        found = ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(ca.file)}))
    assert codes(found) == [("ok", "certificate"), ("ok", "login"), ("ok", "acl")]


def test_wrong_ca(tmp_path: Path, ca: Ca) -> None:
    other = Ca(tmp_path, "other")
    with tls_broker(tmp_path, ca.issue("localhost")) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(other.file)})), "ca")
    assert "not from a CA we trust" in found.text
    assert "tls.ca" in found.fix


@pytest.mark.parametrize(
    ("days", "code", "level", "words"),
    [
        ((-60, -2), "certificate_expired", "error", "renew"),
        ((2, 60), "certificate_not_yet", "error", "clock"),
        ((-60, 5), "certificate_expiring", "warning", "renew"),
    ],
)
def test_certificates_of_another_time(
    tmp_path: Path, ca: Ca, days: tuple[int, int], code: str, level: str, words: str
) -> None:
    with tls_broker(tmp_path, ca.issue("localhost", *days)) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(ca.file)})), code)
    assert found.level == level
    assert words in found.fix


def test_certificate_for_another_name(tmp_path: Path, ca: Ca) -> None:
    with tls_broker(tmp_path, ca.issue("broker.acme.local")) as port:
        found = ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(ca.file)}))
    assert "localhost" in fault(found, "certificate_name").text


def test_plain_port_where_tls_is_wanted(tmp_path: Path, ca: Ca) -> None:
    with mosquitto(tmp_path) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(ca.file)})), "no_tls")
    assert "TLS" in found.text
    assert "port" in found.fix
    assert "`tls: false`" in found.fix


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_tls_port_where_none_is_wanted(tmp_path: Path, ca: Ca, version: object) -> None:
    with tls_broker(tmp_path, ca.issue("localhost")) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, version=version)), "wants_tls")
    assert f"localhost:{port} speaks TLS" in found.text
    assert "remove `tls: false`" in found.fix


def test_http_at_an_https_port_and_the_other_way_round(tmp_path: Path, ca: Ca) -> None:
    output = {"name": "backup", "type": "http"}
    with HttpSink(ca.issue("localhost")) as sink:
        url = f"http://localhost:{sink.port}/"
        found = fault(ask(tmp_path, output | {"url": url}), "wants_tls")
        assert "https:// in `url:`" in found.fix
    with HttpSink() as sink:
        url = f"https://localhost:{sink.port}/"
        found = fault(ask(tmp_path, output | {"url": url}), "no_tls")
        assert "http:// there" in found.fix


def test_client_certificate_wanted(tmp_path: Path, ca: Ca) -> None:
    lines = (f"cafile {ca.file}", "require_certificate true")
    with tls_broker(tmp_path, ca.issue("localhost"), *lines) as port:
        found = ask(tmp_path, mqtt(tmp_path, port, tls={"ca": str(ca.file)}))
        assert found[-1].level == "error"
        assert "tls.cert" in found[-1].fix
        cert, key = ca.issue("planta-sp")
        tls = {"ca": str(ca.file), "cert": cert, "key": key}
        assert codes(ask(tmp_path, mqtt(tmp_path, port, tls=tls)))[-1] == ("ok", "acl")


def test_our_own_key_is_encrypted(tmp_path: Path, ca: Ca) -> None:
    """`check` refuses it, unless it was done since; nobody is asked for its passphrase."""
    cert, key = ca.issue("planta-sp")
    tls = {"ca": str(ca.file), "cert": cert, "key": key}
    with tls_broker(tmp_path, ca.issue("localhost")) as port:
        site = loader.load(
            write(tmp_path, config(tmp_path, outputs=[mqtt(tmp_path, port, tls=tls)]))
        )
        encrypt(key)
        found = fault(list(examine(site)), "encrypted_key")
    assert f"{key} is encrypted" in found.text
    assert "openssl pkey" in found.fix


def test_our_own_certificate_has_expired(tmp_path: Path, ca: Ca) -> None:
    cert, key = ca.issue("planta-sp", -60, -1)
    tls = {"ca": str(ca.file), "cert": cert, "key": key}
    with tls_broker(tmp_path, ca.issue("localhost")) as port:
        found = fault(ask(tmp_path, mqtt(tmp_path, port, tls=tls)), "certificate_expired")
    assert "our certificate" in found.text


# -- HTTP ---------------------------------------------------------------------------------


@contextmanager
def http(answer: Any, methods: tuple[str, ...] = ("HEAD", "POST")) -> Iterator[int]:
    """A server that answers ``methods`` with ``answer(headers)`` -> (status, headers)."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, headers = answer(self.headers)
            self.send_response_only(status)
            for name, value in {"Date": formatdate(time(), usegmt=True), **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    for method in methods:
        setattr(Handler, f"do_{method}", Handler.answer)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_http_credentials_path_and_server(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc")
    token.chmod(0o600)

    def answer(headers: Any) -> tuple[int, dict[str, str]]:
        return (204 if headers["Authorization"] == "Token abc" else 401), {}

    with http(answer) as port:
        url = f"http://127.0.0.1:{port}/api/v2/write?org=a&bucket=b"
        output = {"name": "backup", "type": "http", "format": "influx", "url": url}
        assert codes(ask(tmp_path, output | {"token_file": str(token)})) == [("ok", "http")]
        assert "credentials" in fault(ask(tmp_path, output), "login").text


@pytest.mark.parametrize(
    ("format", "status", "level", "code"),
    [
        ("json", 200, "ok", "http"),
        # Reached, though a HEAD is nothing to this server: Python's own answers 501.
        ("json", 501, "ok", "http"),
        ("json", 405, "ok", "http"),
        ("json", 400, "ok", "http"),
        ("json", 404, "warning", "path"),
        ("json", 401, "error", "login"),
        ("json", 403, "error", "login"),
        ("json", 500, "error", "server"),
        ("json", 503, "error", "server"),
        # A POST is no probe: what it answers is what the output will get.
        ("influx", 204, "ok", "http"),
        ("influx", 404, "error", "path"),
        ("influx", 405, "error", "path"),
        ("influx", 501, "error", "path"),
        ("influx", 403, "error", "login"),
        ("influx", 503, "error", "server"),
    ],
)
def test_what_a_server_answers(
    tmp_path: Path, format: str, status: int, level: str, code: str
) -> None:
    with http(lambda _: (status, {})) as port:
        url = f"http://127.0.0.1:{port}/x"
        (found,) = ask(tmp_path, {"name": "b1", "type": "http", "url": url, "format": format})
    assert (found.level, found.code) == (level, code)
    assert str(status) in found.text
    assert ("does not answer probes" in found.text) == (
        format == "json" and status in (400, 405, 501)
    )


def test_a_server_that_knows_only_post(tmp_path: Path) -> None:
    """Really so: no handler for HEAD."""
    with http(lambda _: (204, {}), methods=("POST",)) as port:
        url = f"http://127.0.0.1:{port}/x"
        (found,) = ask(tmp_path, {"name": "b1", "type": "http", "url": url})
    assert (found.level, "HEAD: 501" in found.text) == ("ok", True)


def test_clock_off_by_the_servers(tmp_path: Path) -> None:
    late = formatdate(time() + 3_600, usegmt=True)
    with http(lambda _: (200, {"Date": late})) as port:
        output = {"name": "backup", "type": "http", "url": f"http://127.0.0.1:{port}/x"}
        found = fault(ask(tmp_path, output), "clock_off")
    assert "behind that of 127.0.0.1" in found.text
    assert "NTP" in found.fix


def test_json_of_a_finding(tmp_path: Path) -> None:
    (found,) = ask(tmp_path, {"name": "console", "type": "stdout"})
    assert json.loads(json.dumps(found.to_dict())) == {
        "level": "ok", "subject": "output console", "code": "stdout",
        "text": "writes to the process's log", "fix": "",
    }  # fmt: skip
