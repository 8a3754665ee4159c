"""What connections may cost the server: one that speaks to real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.runtime import serving
from tests.kit.common import until
from tests.kit.pki import Ca

REQUEST_S = 1.0
WHOLE = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def _wait(_request: Request) -> Response:
    """A long poll."""
    await asyncio.sleep(3 * REQUEST_S)
    return PlainTextResponse("waited")


async def _refuse(_request: Request) -> Response:
    """Before the body is there."""
    return PlainTextResponse("no", 401)


@contextmanager
def serve(host: str = "127.0.0.1", **more: Any) -> Iterator[int]:
    routes = [
        Route("/echo", _echo, methods=["POST"]),
        Route("/wait", _wait),
        Route("/refuse", _refuse, methods=["POST"]),
    ]
    listener = serving.listen("test", host, 0)
    server = serving.Server(Starlette(routes=routes), listener, request_s=REQUEST_S, **more)
    try:
        yield listener.getsockname()[1]
        assert server.failed is None
    finally:
        server.stop()
        listener.close()


def connect(port: int, sent: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
    sock = socket.create_connection((host, port), timeout=10)
    sock.sendall(sent)
    return sock


def read(sock: socket.socket, *ends: bytes) -> bytes:
    """An answer of which the end is known."""
    got = b""
    while not got.endswith(ends) and (part := sock.recv(4096)):
        got += part
    return got


def is_closed(sock: socket.socket) -> bool:
    """Without an answer, or after it."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", id="body"),
        pytest.param(b"POST /echo HTTP/1.1\r\nHost: x\r\nX-A", id="header"),
        pytest.param(WHOLE + b"POST /echo HTTP/1.1\r\nHo", id="second header"),
        pytest.param(WHOLE + b"POST /echo HTTP/1.1\r\nContent-", id="second body"),
        pytest.param(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", id="401"),
    ],
)
def test_a_request_that_does_not_end_is_closed_at_its_deadline(part: bytes) -> None:
    """However often another byte of it comes."""
    with serve() as port, ExitStack() as stack:
        begun_s = time.monotonic()
        socks = [stack.enter_context(connect(port, part)) for _ in range(50)]
        time.sleep(0.5 * REQUEST_S)
        for sock in socks:
            sock.sendall(b"x")
        assert all(is_closed(sock) for sock in socks)
        assert 0.9 * REQUEST_S < time.monotonic() - begun_s < 8 * REQUEST_S
        with connect(port, WHOLE) as sock:
            assert read(sock, b"abcd")


def test_work_and_pauses_between_requests_are_no_part_of_it() -> None:
    with serve() as port, connect(port, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        assert read(sock, b"waited").endswith(b"waited")
        for _ in range(2):
            time.sleep(1.5 * REQUEST_S)
            # In parts, but in time.
            sock.sendall(WHOLE[:10])
            time.sleep(0.1 * REQUEST_S)
            sock.sendall(WHOLE[10:-1])
            time.sleep(0.1 * REQUEST_S)
            sock.sendall(WHOLE[-1:])
            assert read(sock, b"abcd").endswith(b"abcd")


def _own_address() -> str | None:
    """One of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = sock.getsockname()[0]
    return None if serving.is_this_machine(address) else address


def test_one_address_has_so_many_connections_and_a_proxy_here_all() -> None:
    address = _own_address()
    with serve("0.0.0.0", max_per_peer=3) as port, ExitStack() as stack:
        here = [stack.enter_context(connect(port, WHOLE)) for _ in range(9)]
        assert all(read(sock, b"abcd") for sock in here)
        if address is None:
            pytest.skip("this machine has loopback only")
        socks = [stack.enter_context(connect(port, host=address)) for _ in range(3)]
        with connect(port, host=address) as more:
            assert is_closed(more)
        # A place that is left is free again.
        socks.pop().close()

        def served() -> bool:
            with connect(port, host=address) as sock:
                try:
                    sock.sendall(WHOLE)
                    return bool(read(sock, b"abcd"))
                except OSError:
                    return False

        until(served, 5, "a free place")


def test_each_certificate_counts_by_itself(tmp_path: Path) -> None:
    """So do boxes behind one address, and on this machine."""
    ca = Ca(tmp_path, "boxes")
    pair = ca.issue("localhost")

    def shown(name: str) -> socket.socket:
        context = ssl.create_default_context(cafile=str(ca.file))
        context.load_cert_chain(*ca.issue(name))
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        return context.wrap_socket(raw, server_hostname="localhost")

    with serve(tls=pair, clients_ca=str(ca.file), max_per_peer=2) as port, ExitStack() as stack:
        first = [stack.enter_context(shown("box-1")) for _ in range(2)]
        one_more = stack.enter_context(shown("box-2"))
        for sock in (*first, one_more):
            sock.sendall(WHOLE)
            assert b"HTTP/1.1 200" in sock.recv(4096)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_this_machine(address: str, here: bool) -> None:
    assert serving.is_this_machine(address) is here
