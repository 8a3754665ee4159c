"""An HTTP server that takes what an output posts, and answers as it is told."""

from __future__ import annotations

import gzip
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Post:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float
    client_port: int
    status: int = 0


Answer = tuple[int, dict[str, str], bytes]


class HttpSink:
    """``answer(post)`` decides; what it answers 2xx is in ``taken``."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.posts: list[Post] = []
        self.cut = 0
        """Requests that ended before they were whole."""
        self.answer: Callable[[Post], Answer] = lambda _: (204, {}, b"")
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = self.rfile.read(size)
                if len(body) < size:  # the client was killed between its headers and the rest
                    sink.cut += 1
                    self.close_connection = True
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {k.lower(): v for k, v in self.headers.items()}
                post = Post(self.path, headers, body, time.monotonic(), self.client_address[1])
                post.status, extra, text = sink.answer(post)
                sink.posts.append(post)
                if not post.status:  # hang up
                    self.close_connection = True
                    return
                self.send_response(post.status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, _request: object, _address: object) -> None:
                if not isinstance(sys.exception(), ConnectionError):  # its client was killed
                    raise

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}/in"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def taken(self) -> list[Post]:
        """Requests that were answered with success."""
        return [p for p in list(self.posts) if 200 <= p.status < 300]

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> HttpSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
