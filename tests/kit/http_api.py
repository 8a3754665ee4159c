"""A small HTTP server for an API that cannot run here: routes by method and path, answers as JSON,
one request at a time, and whatever it does not know refused."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.kit.common import free_port

Json = dict[str, Any]


class Refusal(Exception):
    """An answer of 4xx or 5xx."""

    def __init__(self, status: int, document: Json) -> None:
        super().__init__(status, document)
        self.status = status
        self.document = document


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """As JSON; raises ValueError."""
        return json.loads(self.raw)


Route = Callable[..., tuple[int, Any]]


class HttpApi:
    """``route`` says what answers to what."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.asked: list[tuple[str, str]] = []
        """(method, path) of each request so far."""
        self._routes: list[tuple[str, re.Pattern[str], Route]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet: in two, each answer waits 40 ms for an ACK.
            wbufsize = 65_536

            def answer(self) -> None:
                url = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {k.lower(): v for k, v in self.headers.items()}
                query = dict(parse_qsl(url.query, keep_blank_values=True))
                status, text = api._answer(Asked(self.command, url.path, query, headers, raw))
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

        self._handler = Handler
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Answers; what it holds is what it held before ``stop``."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def route(self, method: str, pattern: str, answer: Route) -> None:
        """``{}`` in a pattern is one part of the path."""
        whole = "/".join("([^/]+)" if p == "{}" else re.escape(p) for p in pattern.split("/"))
        self._routes.append((method, re.compile(whole), answer))

    def _answer(self, asked: Asked) -> tuple[int, bytes]:
        with self.lock:
            self.asked.append((asked.method, asked.path))
            try:
                self.authenticate(asked)
                status, document = self._routed(asked)
            except Refusal as e:
                status, document = e.status, e.document
            return status, b"" if document is None else json.dumps(document).encode()

    def _routed(self, asked: Asked) -> tuple[int, Any]:
        known = False
        for method, pattern, answer in self._routes:
            if match := pattern.fullmatch(asked.path):
                known = True
                if method == asked.method:
                    return answer(asked, *map(unquote, match.groups()))
        return self.unknown(asked, known)

    def authenticate(self, asked: Asked) -> None:
        """Raises Refusal."""
        raise NotImplementedError

    def unknown(self, asked: Asked, known_path: bool) -> tuple[int, Any]:
        """No such path, or no such method there."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
