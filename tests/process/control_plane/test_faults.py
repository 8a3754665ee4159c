"""The database dies, the process dies, strangers hold connections: what must still hold."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from threading import Thread

import pytest
import urllib3

from services.control_plane import checking, lanes
from tests.kit import postgres
from tests.kit.centre import DATABASES, Centre, Reply
from tests.kit.common import until


def test_a_postgresql_that_dies_is_said_and_taken_up_again() -> None:
    with Centre("postgresql") as centre:
        centre.tenant("antes")
        cluster = postgres.cluster()
        cluster.kill()
        for method, path, body in (
            ("GET", "/v1/tenants", None),
            ("POST", "/v1/tenants", {"id": "durante"}),
        ):
            refused = centre.call(method, path, body)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.body["type"] == "urn:plc-edge:problem:unavailable"
        assert centre.call("GET", "/healthz").status == 503
        cluster.start()
        until(lambda: centre.call("GET", "/healthz").status == 200, 10, "healthy again")
        assert centre.call("POST", "/v1/tenants", {"id": "depois"}).status == 201
        assert centre.call("GET", "/v1/tenants/antes").status == 200
        assert centre.service is not None
        assert centre.service.terminate() == 0
        assert centre.faults() == []


@pytest.mark.parametrize("database", DATABASES)
def test_sigterm_ends_it_well_while_connections_are_open(database: str) -> None:
    with Centre(database) as centre, socket.create_connection(("127.0.0.1", centre.port)) as idle:
        idle.sendall(b"GET /v1/tenants HTTP/1.1\r\n")
        assert centre.call("GET", "/v1/tenants").status == 200
        assert centre.service is not None
        assert centre.service.terminate() == 0


def _bomb() -> str:
    """ "Billion laughs": each line nine times the one before."""
    names = "abcdefghijkl"
    return "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise(names)
    )


def test_a_check_that_does_not_end_holds_up_nobody_else() -> None:
    with Centre() as centre:
        centre.tenant("lento")
        path = "/v1/tenants/lento/sites/caixa-1/configs"
        bomb = _bomb()
        bombs = [Thread(target=centre.call, args=("POST", path, {"yaml": bomb})) for _ in range(3)]
        for thread in bombs:
            thread.start()
        slowest_s = 0.0
        while any(thread.is_alive() for thread in bombs):
            begun_s = time.monotonic()
            assert centre.call("POST", "/v1/tenants/lento/suspend").status == 200
            assert centre.call("POST", "/v1/tenants/lento/resume").status == 200
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
            time.sleep(0.05)
        assert slowest_s < 0.8 * checking.TIME_S


def test_forty_checks_at_once_leave_their_threads_to_all_others() -> None:
    with Centre() as centre:
        box = centre.tenant("lento")["box"]
        path = "/v1/tenants/lento/sites/caixa-1"
        refused: list[Reply] = []
        body = {"yaml": _bomb()}

        def check() -> None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # the test ends before it
                reply = centre.call("POST", f"{path}/configs/check", body)
                if reply.status == 503:
                    refused.append(reply)

        pool = [Thread(target=check, daemon=True) for _ in range(40)]
        for thread in pool:
            thread.start()
        slowest_s = 0.0
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            for address, key in (("/v1/me", centre.key), (f"{path}/target", box)):
                begun_s = time.monotonic()
                assert centre.call("GET", address, key=key).status in (200, 204)
                slowest_s = max(slowest_s, time.monotonic() - begun_s)
        assert slowest_s < 0.6 * checking.TIME_S, "they have waited until a check was ended"
        # Whoever found a place within the short wait was served.
        assert 40 - 2 * lanes.CHECKING <= len(refused) <= 40 - lanes.CHECKING
        for reply in refused:
            assert reply.body["type"] == "urn:plc-edge:problem:busy"
            assert int(reply.headers["retry-after"]) > 0
