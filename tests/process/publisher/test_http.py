"""The HTTP output against a real HTTP server."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from itertools import pairwise

import orjson
import pytest

from tests.kit.broker import Authority
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.http_sink import Answer, HttpSink, Post
from tests.kit.procs import service
from tests.kit.publisher_rig import http_config, run_folder


def messages(sink: HttpSink) -> list[bytes]:
    """Every message that was taken, in order."""
    return [orjson.dumps(m) for p in sink.taken for m in orjson.loads(p.body)]


@pytest.mark.parametrize("gzip", [True, False])
def test_batches_arrive_in_order_over_one_connection(gzip: bool) -> None:
    with (
        run_folder() as run,
        HttpSink() as sink,
        DispatchPeer(run, "web") as peer,
        service(http_config(run, sink.url, gzip=gzip)) as publisher,
    ):
        peer.add(500)
        peer.wait_done(10)
        check(peer, messages(sink), 100, 0)
        assert len(messages(sink)) == 500
        assert len(sink.posts) < 50
        assert len({p.client_port for p in sink.posts}) == 1
        assert sink.posts[0].headers["content-type"] == "application/json"
        assert ("content-encoding" in sink.posts[0].headers) is gzip
        assert publisher.terminate() == 0


def test_tls_and_bearer_token() -> None:
    with run_folder() as run:
        authority = Authority(run)
        (run / "token").write_text("t0k3n\n")
        with (
            HttpSink(authority.issue("server")) as sink,
            DispatchPeer(run, "web") as peer,
            service(
                http_config(
                    run,
                    sink.url,
                    tls={"ca": str(authority.ca), "cert": None, "key": None},
                    token={"file": str(run / "token")},
                )
            ) as publisher,
        ):
            peer.add(20)
            peer.wait_done(10)
            assert sink.posts[0].headers["authorization"] == "Bearer t0k3n"
            assert "t0k3n" not in "\n".join(publisher.text)


def test_an_unknown_certificate_gets_nothing() -> None:
    with (
        run_folder() as run,
        HttpSink(Authority(run).issue("server")) as sink,
        DispatchPeer(run, "web") as peer,
        service(http_config(run, sink.url)) as publisher,
    ):
        peer.add(1)
        until(lambda: publisher.said('"output_ca"'), 10, publisher.stderr)
        assert not sink.posts


def test_basic_authentication() -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        (run / "pw").write_text("pässword")
        with service(
            http_config(run, sink.url, username="box", password={"file": str(run / "pw")})
        ):
            peer.add(1)
            peer.wait_done(10)
            kind, value = sink.posts[0].headers["authorization"].split()
            assert kind == "Basic"
            assert base64.b64decode(value).decode() == "box:pässword"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 408, 429, 500, 502, 503, 301, 0])
def test_no_message_is_blamed_for_faults_of_server_and_credentials(status: int) -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        sink.answer = lambda _: (status, {}, b"no")
        peer.add(100)
        with service(http_config(run, sink.url)) as publisher:
            until(lambda: len(sink.posts) >= 3, 10, publisher.stderr)
            assert not peer.settled
            bodies = {p.body for p in sink.posts}
            assert len(bodies) == 1, "something else was sent before the first batch was taken"
            gaps = [b.at_s - a.at_s for a, b in pairwise(sink.posts)]
            assert min(gaps) >= 0.2, "no pause between attempts"
            sink.answer = lambda _: (204, {}, b"")
            peer.wait_done(10)
            assert not peer.refused
            check(peer, messages(sink), 0, 0)


def test_retry_after_is_obeyed() -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        sink.answer = lambda _: (
            (429, {"Retry-After": "3"}, b"") if not sink.posts else (204, {}, b"")
        )
        peer.add(10)
        with service(http_config(run, sink.url)):
            peer.wait_done(10)
            first, second = sink.posts[0], sink.taken[0]
            assert 3.0 <= second.at_s - first.at_s < 10.0


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_message_at_fault_is_found_and_the_rest_goes_on(status: int) -> None:
    def answer(post: Post) -> Answer:
        bad = [m["seq"] for m in orjson.loads(post.body) if m["seq"] in (7, 8, 90)]
        return (status, {}, f"seq {bad} is no good".encode()) if bad else (204, {}, b"")

    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        sink.answer = answer
        peer.add(200)
        with service(http_config(run, sink.url)):
            peer.wait_done(10)
            assert sorted(peer.refused) == [7, 8, 90]
            assert peer.refused[90] == f"HTTP {status}: seq [90] is no good"
            check(peer, messages(sink), 0, 0)


def test_influx_line_protocol() -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        (run / "token").write_text("t")
        bodies = [peer_body(1), b"no JSON", peer_body(3)]
        peer.add(3, bodies=bodies)
        url = sink.url + "?org=acme&bucket=raw&precision=ms"
        with service(
            http_config(run, url, format="influx", token={"file": str(run / "token")})
        ) as publisher:
            peer.wait_done(10)
            lines = [line for p in sink.taken for line in p.body.decode().splitlines()]
            assert lines == [
                "s7_db1,site=planta-sp,locatario_id=acme,plc_id=prensa-01,quality=good"
                f' latency_ms=2.5,n={n}.0,on=1.0,nome_txt="a \\"b\\"",v.0=1.0,v.1=2.0'
                " 1764000000123"
                for n in (1, 3)
            ]
            assert list(peer.refused) == [2]
            assert sink.posts[-1].headers["authorization"] == "Token t"
            assert sink.posts[-1].path == "/in?org=acme&bucket=raw&precision=ms"
            assert "bucket=raw" not in "\n".join(publisher.text)


def peer_body(n: int) -> bytes:
    return orjson.dumps(
        {
            "v": 1,
            "site": "planta-sp",
            "locatario_id": "acme",
            "plc_id": "prensa-01",
            "measurement": "s7_db1",
            "ts": 1764000000123,
            "epoch": 1,
            "seq": n,
            "quality": "good",
            "latency_ms": 2.5,
            "values": {"n": n, "on": True, "nome": 'a "b"', "v": [1, 2.0], "nada": None},
        }
    )


def test_a_server_that_hangs_does_not_hold_up_the_end() -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web") as peer:
        hanging: list[int] = []

        def answer(_post: Post) -> Answer:
            hanging.append(1)
            until(lambda: len(hanging) > 1, 30, "released")
            return 204, {}, b""

        sink.answer = answer
        peer.add(1)
        with service(http_config(run, sink.url, timeout=30.0)) as publisher:
            until(lambda: hanging, 10, publisher.stderr)
            assert publisher.terminate() == 0
        hanging.append(1)
        assert not peer.settled


@pytest.mark.parametrize(
    ("flaw", "code", "mend"),
    [
        ("other ca", "ca", "set `tls.ca` to the certificate of the CA"),
        ("other name", "certificate_name", "set `url:` to a name that stands in the certificate"),
        ("expired", "certificate_expired", "renew it on the server"),
        ("plain port", "no_tls", "correct the port in `url:`, or write http:// there"),
        ("tls port", "wants_tls", "write https:// in `url:`"),
    ],
)
def test_tls_that_does_not_come_to_be(flaw: str, code: str, mend: str) -> None:
    """Named with what to change; no message is guilty of it."""
    with run_folder() as run:
        authority = Authority(run)
        host, days = ("127.0.0.9" if flaw == "other name" else "127.0.0.1"), 30
        certificate = authority.issue("server", -1 if flaw == "expired" else days, host)
        (run / "other").mkdir()
        ca = Authority(run / "other").ca if flaw == "other ca" else authority.ca
        with HttpSink(None if flaw == "plain port" else certificate) as sink:
            scheme = "http" if flaw == "tls port" else "https"
            url = f"{scheme}://127.0.0.1:{sink.port}/in"
            tls = {"ca": str(ca), "cert": None, "key": None}
            with (
                DispatchPeer(run, "web") as peer,
                service(http_config(run, url, tls=tls)) as publisher,
            ):
                peer.add(5)
                until(lambda: publisher.said(f'"output_{code}"'), 10, publisher.stderr)
                publisher.wait_said(mend)
                assert not peer.settled
                assert publisher.terminate() == 0


def test_a_tls_port_that_answers_plain_http_with_400_makes_no_dead_letters() -> None:
    """As Go's servers do (InfluxDB), nginx and Apache: it is the url that is wrong."""
    with run_folder() as run:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*Authority(run).issue("server"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stop = threading.Thread(target=_answer_400, args=(listener, context), daemon=True)
            stop.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with (
                DispatchPeer(run, "web") as peer,
                service(http_config(run, url)) as publisher,
            ):
                peer.add(5)
                until(lambda: publisher.said('"output_wants_tls"'), 10, publisher.stderr)
                assert not peer.settled
                assert not peer.refused
                assert publisher.terminate() == 0
            listener.shutdown(socket.SHUT_RDWR)


def _answer_400(listener: socket.socket, context: ssl.SSLContext) -> None:
    text = b"Client sent an HTTP request to an HTTPS server.\n"
    answer = b"HTTP/1.0 400 Bad Request\r\n\r\n" + text
    with contextlib.suppress(OSError):
        while True:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                if peer.recv(1, socket.MSG_PEEK) == b"\x16":
                    context.wrap_socket(peer, server_side=True).close()
                else:
                    peer.recv(65_536)
                    peer.sendall(answer)
