"""The metrics process as it runs: frames in over the bus, HTTP out, faults injected."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.runtime.supervise import rpc
from tests.kit.common import ROOT, until
from tests.kit.metrics_rig import Rig, metrics_config
from tests.kit.pki import Ca, encrypt

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(machines=2) as rig:
        until(lambda: rig.get("/readyz").status == 200, 10, "ready")
        yield rig


def sample(rig: Rig, name: str, **labels: str) -> float | None:
    text = rig.get("/metrics", accept=OPENMETRICS).data.decode()
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            if s.name == name and s.labels == labels:
                return float(s.value)
    return None


# -- HTTP, CONTRACT §6 --------------------------------------------------------------------


def test_contract_metrics_and_clean_for_promtool(rig: Rig) -> None:
    text = rig.get("/metrics", accept=OPENMETRICS).data.decode()
    names = {f.name for f in text_string_to_metric_families(text)}
    assert {
        "plc_edge_scan_duration_seconds", "plc_edge_scan_overruns", "plc_edge_read_requests",
        "plc_edge_plc_up", "plc_edge_reconnects", "plc_edge_fields_bad", "plc_edge_store_pending",
        "plc_edge_store_bytes", "plc_edge_store_dropped", "plc_edge_published",
        "plc_edge_publish_latency_seconds", "plc_edge_mirror_writes", "plc_edge_bus_dropped",
        "plc_edge_process_up", "plc_edge_process_restarts",
    } <= names  # fmt: skip
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    classic = rig.get("/metrics").data
    done = subprocess.run([promtool, "check", "metrics"], input=classic, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_last_passes_bodies_as_they_are(rig: Rig) -> None:
    messages = rig.get("/api/last").json()["messages"]
    assert len(messages) == 3 * (2 + 1)
    assert all(m["v"] == 1 and m["quality"] == "good" and m["seq"] > 0 for m in messages)
    one = rig.get("/api/last?plc=forno-02&group=db500").json()["messages"]
    assert sorted((m["plc_id"], m["machine"]) for m in one) == [
        ("forno-02", "m00"), ("forno-02", "m01"),
    ]  # fmt: skip


def test_health_ready_and_read_only(rig: Rig) -> None:
    assert rig.get("/healthz").data == b"ok\n"
    assert rig.get("/readyz").json() == {"ready": True, "reasons": []}
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/api/status", "/api/stream", "/metrics", "/api/last"):
            assert rig.http.request(method, rig.url + path, timeout=5.0).status == 405
    assert rig.get("/static/../service.py").status == 404
    assert rig.get("/static/%2e%2e/service.py").status == 404
    assert rig.get("/nothing").status == 404


def test_page_is_cached_compressed_and_locked_down(rig: Rig) -> None:
    page = rig.get("/", **{"accept-encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    again = rig.get("/", **{"if-none-match": page.headers["etag"]})
    assert (again.status, again.data) == (304, b"")


def test_trend_from_the_first_question_on(rig: Rig) -> None:
    path = "/api/trend?plc=prensa-01&group=db500&machine=m01&field=temperatura"
    assert rig.get(path).json()["values"] == []

    def points() -> dict[str, list[float]] | None:
        trend: dict[str, list[float]] = rig.get(path).json()
        return trend if len(trend["values"]) >= 3 else None

    trend = until(points, 10, "points")
    assert trend["ts"] == sorted(trend["ts"])
    assert all(60 < v < 100 for v in trend["values"])
    for wrong in (
        "plc=x&group=db500&field=a",
        "plc=prensa-01&group=x&field=a",
        "plc=prensa-01&group=db500&field=",
        "plc=prensa-01&group=db500&machine=zz&field=a",
    ):
        assert rig.get(f"/api/trend?{wrong}").status == 404


def read_stream(rig: Rig, query: str, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    """(event name, data) of what comes in so many seconds."""
    response = rig.http.request(
        "GET",
        f"{rig.url}/api/stream{query}",
        preload_content=False,
        timeout=urllib3.Timeout(connect=5, read=5),
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    data, deadline_s = b"", time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        data += response.read1(65_536)
    response.close()
    events = []
    for block in data.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "data" in lines:
            events.append((lines.get("event", "message"), json.loads(lines["data"])))
    return events


def test_stream_without_wishes_is_every_message(rig: Rig) -> None:
    events = read_stream(rig, "", 2.5)
    assert {name for name, _ in events} == {"message"}
    assert {e["plc_id"] for _, e in events} == {"prensa-01", "forno-02", "injetora-03"}
    seqs = [e["seq"] for _, e in events if e["plc_id"] == "prensa-01" and e["group"] == "db501"]
    assert len(seqs) >= 2
    assert seqs == sorted(set(seqs))


def test_stream_of_the_panel(rig: Rig) -> None:
    events = read_stream(rig, "?panel=1&plc=prensa-01&group=forno-02/db501", 2.5)
    names = [name for name, _ in events]
    assert names[0] == "hello"
    assert names.count("status") >= 2
    assert names.count("groups") >= 2
    messages = [e for name, e in events if name == "message"]
    assert {(m["plc_id"], m["group"]) for m in messages} == {("forno-02", "db501")}
    groups = next(e for name, e in events if name == "groups")
    assert [g["name"] for g in groups["groups"]] == ["db500", "db501"]


# -- faults -------------------------------------------------------------------------------


def test_counters_survive_every_restart(rig: Rig) -> None:
    def count() -> float:
        return sample(rig, "plc_edge_published_total", output="central", result="ok") or 0.0

    until(lambda: count() > 42, 10, "counted")
    before = count()
    rig.tell(restart="publisher-central")
    until(lambda: count() > before, 10, "goes on from there")
    before = count()
    pid = rig.pid("metrics")
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: rig.get("/healthz").status == 200 and rig.pid("metrics") != pid,
        10,
        "metrics is back",
    )
    until(lambda: count() >= before, 10, "counters are back")
    assert count() < before + 42 * 20


def test_killed_process_becomes_event_metric_and_status(rig: Rig) -> None:
    before = sample(rig, "plc_edge_process_restarts_total", process="mirror-copia-db500")
    assert before is not None
    os.kill(rig.pid("mirror-copia-db500"), signal.SIGKILL)
    until(
        lambda: (
            sample(rig, "plc_edge_process_restarts_total", process="mirror-copia-db500")
            == before + 1
        ),
        10,
        "restart counted",
    )
    hello = read_stream(rig, "?panel=1", 0.5)[0][1]
    assert any(
        e["code"] == "process_restarted" and "mirror-copia-db500" in e["text"]
        for e in hello["events"]
    )
    assert '"process_restarted"' in rig.log()


def test_plc_pulled_and_back(rig: Rig) -> None:
    rig.tell(
        plc="forno-02",
        status="offline",
        failure={"code": "timeout", "message": "no answer in 2 s", "since": 1, "attempts": 4},
    )
    problem = until(lambda: rig.problem("plc_timeout", "forno-02"), 10, "told")
    assert problem["text"] == "No answer from the PLC at 192.168.0.11"
    assert sample(rig, "plc_edge_plc_up", plc="forno-02") == 0
    until(lambda: rig.get("/readyz").status == 503, 8, "not ready")
    rig.tell(plc="forno-02", status="online")
    until(lambda: rig.get("/readyz").status == 200, 10, "ready again")
    assert sample(rig, "plc_edge_plc_up", plc="forno-02") == 1


def test_a_client_that_does_not_read_harms_nobody(rig: Rig) -> None:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    stuck.connect(("127.0.0.1", rig.port))
    stuck.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: (sample(rig, "plc_edge_stream_clients") or 0) >= 1, 10, "it is counted")
    started_s = time.monotonic()
    assert len(read_stream(rig, "", 2.0)) > 10
    assert rig.get("/healthz").status == 200
    assert time.monotonic() - started_s < 10, "less than the patience with the other"
    stuck.close()
    until(lambda: sample(rig, "plc_edge_stream_clients") == 0, 10, "gone")


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """The sooner the more there is to send: 6 MB fill all buffers, then 15 s of patience."""
    with Rig(plcs=3, machines=16, fields=400) as rig:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.connect(("127.0.0.1", rig.port))
        stuck.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: sample(rig, "plc_edge_stream_clients") == 1, 10, "connected")
        name = "plc_edge_stream_clients_dropped_total"
        until(lambda: sample(rig, name) == 1, 45, "cut off")
        assert sample(rig, "plc_edge_stream_clients") == 0
        # What the kernel still holds comes out, then it is over: nothing new is sent.
        stuck.settimeout(5)
        try:
            while stuck.recv(1 << 20):
                pass
        except ConnectionResetError:
            pass
        stuck.close()


def test_a_connection_that_says_nothing_is_closed(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port)) as silent:
        silent.sendall(b"GET / HT")
        silent.settimeout(30)
        started_s = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert 8 < time.monotonic() - started_s < 20


def test_garbage_on_the_wire_is_counted(rig: Rig) -> None:
    from bus.sockets import Bus

    bus = Bus(rig.folder)
    port = bus.connect("live")
    try:

        def refused() -> bool:
            port.socket.send_multipart((b"x|", b"\xc1garbage"))
            found = sample(rig, "plc_edge_bus_refused_total", service="metrics", reason="malformed")
            return bool(found)

        until(refused, 10, "counted")
    finally:
        bus.close()


def test_new_configuration_without_a_restart(rig: Rig) -> None:
    pid = rig.pid("metrics")
    config = json.loads(rig.file.read_text())
    config["plcs"].append({**config["plcs"][0], "id": "nova-09", "host": "192.168.0.99"})
    new = rig.file.with_suffix(".new")
    new.write_text(json.dumps(config))
    new.rename(rig.file)
    until(lambda: any(p["id"] == "nova-09" for p in rig.status()["plcs"]), 10, "known")
    assert rig.pid("metrics") == pid
    new.write_text(json.dumps(rig.config))
    new.rename(rig.file)
    until(lambda: all(p["id"] != "nova-09" for p in rig.status()["plcs"]), 10, "gone")


def test_a_crash_loop_and_a_permanent_failure() -> None:
    fake = {
        "mirror-copia-db500": f"{sys.executable} -c 'import time; time.sleep(1.2)'",
        "publisher-backup": "/bin/sh -c 'sleep 1.5; exit 78'",
    }
    with Rig(fake=fake, plcs=1) as rig:
        problem = until(lambda: rig.problem("process_config", "publisher-backup"), 10, "permanent")
        assert "plc-edge apply" in problem["fix"]
        until(lambda: rig.problem("process_flapping", "mirror-copia-db500"), 20, "flapping")
        assert sample(rig, "plc_edge_process_up", process="publisher-backup") == 0
        until(lambda: rig.get("/readyz").status == 503, 10, "not ready")


def test_requested_restarts_are_no_crash_loop() -> None:
    """As an operator (stop, start) and as ``plc-edge apply`` (a new program) make them."""
    by_hand, replaced, killed = "reader-forno-02", "publisher-backup", "reader-prensa-01"
    with Rig(plcs=2) as rig:
        supervisor = rpc(rig.folder / "supervisor.sock")
        pids = dict.fromkeys((by_hand, replaced, killed), 0)

        def all_new() -> bool:
            rows = {p["name"]: p for p in rig.status()["processes"]}
            return all(rows[n]["up"] and rows[n]["pid"] != pid for n, pid in pids.items())

        until(all_new, 10, "all run")
        for _ in range(3):
            pids = {name: rig.pid(name) for name in pids}
            supervisor.stopProcess(by_hand)
            supervisor.startProcess(by_hand, False)
            supervisor.stopProcessGroup(replaced)
            supervisor.removeProcessGroup(replaced)
            supervisor.addProcessGroup(replaced)
            os.kill(pids[killed], signal.SIGKILL)
            until(all_new, 10, "all run again")
        assert rig.problem("process_flapping", killed)
        for name, times in ((killed, 3), (by_hand, 0), (replaced, 0)):
            assert sample(rig, "plc_edge_process_restarts_total", process=name) == times
            assert bool(rig.problem("process_flapping", name)) == bool(times)
        assert rig.log().count('"process_restart_asked"') == 6


def test_certificates_about_to_end(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    soon, over = ca.issue("box", -60, 5)[0], ca.issue("old", -60, -1)[0]
    certificates = [
        {"process": "publisher-central", "file": soon},
        {"process": "publisher-backup", "file": over},
        {"process": "publisher-central", "file": str(tmp_path / "missing.pem")},
    ]
    with Rig(plcs=1, certificates=certificates) as rig:
        subject = f"publisher-central: {Path(soon).name}"
        until(lambda: rig.problem("certificate_expiring", subject), 10, "warned")
        assert rig.problem("certificate_expired", f"publisher-backup: {Path(over).name}")
        end_s = sample(
            rig,
            "plc_edge_certificate_expiry_timestamp_seconds",
            process="publisher-central",
            file=Path(soon).name,
        )
        assert end_s is not None
        assert 4 < (end_s - time.time()) / 86_400 < 5
        assert "missing.pem" in rig.log()


def test_a_frozen_supervisord_stops_nothing() -> None:
    with Rig(plcs=1) as rig:
        until(lambda: rig.get("/readyz").status == 200, 10, "ready")
        assert rig.supervisord is not None
        rig.supervisord.send_signal(signal.SIGSTOP)
        try:
            problem = until(lambda: rig.problem("supervisor_unreachable"), 10, "told")
            assert "does not answer" in problem["fix"]
            first = rig.get("/api/last").json()["messages"][0]["seq"]
            until(
                lambda: rig.get("/api/last").json()["messages"][0]["seq"] > first,
                10,
                "values go on",
            )
        finally:
            rig.supervisord.send_signal(signal.SIGCONT)
        until(lambda: not rig.problem("supervisor_unreachable"), 10, "back")


# -- authentication and TLS ---------------------------------------------------------------


def test_password_and_tls(tmp_path: Path) -> None:
    certificate, key = Ca(tmp_path).issue("painel.local")
    password = tmp_path / "pw"
    password.write_text("s3nha com espaço:ü\n")
    with Rig(
        plcs=1,
        username="operador",
        password={"file": str(password)},
        tls={"cert": certificate, "key": key},
    ) as rig:

        def ask(user: str, word: str, path: str = "/api/status") -> int:
            basic = base64.b64encode(f"{user}:{word}".encode()).decode()
            return rig.get(path, authorization=f"Basic {basic}").status

        assert ask("operador", "s3nha com espaço:ü") == 200
        assert ask("operador", "s3nha") == 401
        assert ask("", "") == 401
        for header in ("Basic", "Basic !!!", "Bearer x", "Basic " + "A" * 5_000):
            assert rig.get("/", authorization=header).status == 401
        for path in ("/", "/metrics", "/api/last", "/api/stream", "/readyz", "/static/panel.js"):
            refused = rig.get(path)
            assert refused.status == 401
            assert refused.headers["www-authenticate"].startswith("Basic realm=")
        assert rig.get("/healthz").status == 200
        assert "s3nha" not in rig.log()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", rig.port)) as raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw)


def start(config: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs metrics until it ends by itself."""
    file = folder / "metrics.json"
    file.write_text(json.dumps(config))
    return subprocess.run(
        [sys.executable, "-P", "-m", "services.metrics", "--config", str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_port_taken_is_said_in_plain_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(metrics_config(tmp_path, port), tmp_path)
    assert done.returncode == 1  # retried by supervisord: the port may become free
    assert f"metrics cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "metrics.port" in done.stderr


def test_an_encrypted_key_is_permanent(tmp_path: Path) -> None:
    certificate, key = Ca(tmp_path).issue("painel.local")
    tls = {"cert": certificate, "key": encrypt(key)}
    done = start(metrics_config(tmp_path, 0, tls=tls), tmp_path)
    assert done.returncode == 78
    assert f"{key} is encrypted" in done.stderr
    assert "openssl pkey" in done.stderr


def test_a_certificate_that_does_not_work_is_permanent(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    tls = {"cert": str(bad), "key": str(bad)}
    done = start(metrics_config(tmp_path, 0, tls=tls), tmp_path)
    assert done.returncode == 78
    assert "metrics.tls" in done.stderr
    assert "PEM certificate" in done.stderr


def test_sigterm_with_open_streams_ends_at_once_and_cleanly() -> None:
    with Rig(plcs=1) as rig:
        response = rig.http.request("GET", rig.url + "/api/stream", preload_content=False)
        pid = rig.pid("metrics")
        process = psutil.Process(pid)
        started_s = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        psutil.wait_procs([process], timeout=20)
        assert time.monotonic() - started_s < 6
        until(lambda: rig.pid("metrics") not in (0, pid), 10, "another one")
        log = (rig.folder / "supervisord.log").read_text()
        assert "exited: metrics (exit status 0" in log
        response.close()
