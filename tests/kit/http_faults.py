"""Between a client and an HTTP server: passes requests on, or does to them what networks do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

import urllib3

from tests.kit.common import free_port

PASS, AWAY, HANG, CUT, UNAUTHORIZED = "pass", "away", "hang", "cut", "unauthorized"
# Not passed on: they are of one connection (RFC 9110, 7.6.1).
_OWN = {"connection", "transfer-encoding", "content-length", "host"}
HANG_S = 60.0


class HttpFaults:
    """``judge(method, path)`` says what happens to a request:

    pass; away: 503, and the server never sees it; hang: no answer at all, never seen; cut: carried
    out, and the connection ends before the answer; unauthorized: 401, never seen.
    """

    def __init__(self, upstream: str) -> None:
        self.judge: Callable[[str, str], str] = lambda _method, _path: PASS
        self.seen: list[tuple[str, str, str]] = []
        """(method, path, what happened)"""
        self._ended = threading.Event()
        proxy, pool = self, urllib3.PoolManager(maxsize=16)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet: in two, each answer waits 40 ms for an ACK.
            wbufsize = 65_536

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urlsplit(self.path).path
                fault = proxy.judge(self.command, path)
                proxy.seen.append((self.command, path, fault))
                if fault == HANG:
                    proxy._ended.wait(HANG_S)
                    self.close_connection = True
                    return
                if fault in (AWAY, UNAUTHORIZED):
                    status = 503 if fault == AWAY else 401
                    self._say(status, b'{"message": "made up on the way"}')
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _OWN}
                try:
                    got = pool.request(
                        self.command, upstream + self.path, body=body, headers=headers,
                        retries=False, redirect=False, timeout=30,
                    )  # fmt: skip
                except urllib3.exceptions.HTTPError:  # the server is away itself
                    self.close_connection = True
                    return
                if fault == CUT:
                    self.close_connection = True
                    return
                self._say(got.status, got.data)

            def _say(self, status: int, text: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                if status != 204:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def once(self, method: str, end: str, fault: str) -> None:
        """The next request whose path ends so."""

        def judge(asked: str, path: str) -> str:
            if asked == method and path.endswith(end):
                self.judge = lambda _method, _path: PASS
                return fault
            return PASS

        self.judge = judge

    def all(self, fault: str) -> None:
        """Every request from now on."""
        self.judge = lambda _method, _path: fault

    def calm(self, seconds: float) -> bool:
        """Whether nothing but reads came within so many seconds."""
        before = len(self.seen)
        time.sleep(seconds)
        return all(method == "GET" for method, _, _ in self.seen[before:])

    def close(self) -> None:
        """Ends it."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
