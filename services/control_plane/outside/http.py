"""One HTTP API that somebody else serves: asked, and its refusals in words.

Only reads are repeated here: whether a change that was not answered was carried out, nobody knows,
so whoever made it looks again before making it once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from services.control_plane.worker import Away, Refused
from services.runtime.errors import ConfigError
from services.runtime.tls import client_context

CONNECT_S, READ_S = 5.0, 20.0
RETRIES = urllib3.Retry(
    total=2,
    read=0,
    redirect=0,
    backoff_factor=0.2,
    status_forcelist=(502, 503, 504),
    allowed_methods=("GET",),
    raise_on_status=False,
    respect_retry_after_header=False,
)
# Nobody can be served while it answers so. 500 is one request's own fault.
_AWAY = (429, 502, 503, 504)
_WORDS = 300


class Missing(Refused):
    """404: there is no such thing."""


class Http:
    """One server, and how to speak to it."""

    def __init__(
        self, name: str, url: str, ca: str | None, headers: Callable[[], Mapping[str, str]]
    ) -> None:
        """``name`` for people; ``headers`` are asked for each request: a rotated secret needs no
        restart.
        """
        self._url = url.rstrip("/")
        self.where = f"{name} at {urlsplit(url).netloc.rpartition('@')[2]}"
        self._headers = headers
        self._ca = ca
        self._pool: urllib3.PoolManager | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's document; None where it has none. ``path`` is quoted already.

        Raises Missing, Refused with the server's own words, Away.
        """
        address = f"{self._url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            given = {**self._headers(), **(headers or {})}
        except ConfigError as e:
            raise Away(str(e)) from None
        if body is not None:
            given["Content-Type"] = "application/json"
        content = None if body is None else json.dumps(body).encode()
        answer = self._send(method, address, content, given)
        document = _document(answer.data)
        if answer.status < 300:
            return document
        said = _said(document)
        # Why nobody is served is shown to every tenant: the path may hold another one's name.
        if answer.status == 401:
            raise Away(f"{self.where} refuses the credentials (401): {said}")
        if answer.status in _AWAY:
            raise Away(f"{self.where} answers {answer.status}: {said}")
        words = f"{self.where} answers {answer.status} to {method} {path}: {said}"
        raise (Missing if answer.status == 404 else Refused)(words)

    def _send(
        self, method: str, address: str, body: bytes | None, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            if self._pool is None:
                self._pool = urllib3.PoolManager(
                    ssl_context=client_context(self._ca),
                    timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                )
            return self._pool.request(
                method, address, body=body, headers=headers, retries=RETRIES, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            self._pool = None  # a new one reads the CA again
            cause = e.reason if isinstance(e, urllib3.exceptions.MaxRetryError) else e
            if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
                # Deleting a lot takes its time: others need not wait for it.
                raise Refused(f"{self.where} has not answered within {READ_S:g} s") from None
            if isinstance(cause, urllib3.exceptions.ProtocolError):
                raise Refused(f"{self.where} ended the connection before its answer") from None
            if isinstance(cause, ValueError) and not isinstance(cause, OSError):
                # Not what it says: http.client quotes the header, and that may be the token.
                raise Away(f"{self.where}: the secret holds what no HTTP header may") from None
            raise Away(f"{self.where} cannot be reached: {_why(cause)}") from None

    def find(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The same of what may be missing: None then."""
        try:
            return self.ask("GET", path, query=query, headers=headers)
        except Missing:
            return None


def part(name: object) -> str:
    """A name as one part of a path."""
    return quote(str(name), safe="")


def _why(error: Exception | None) -> str:
    """urllib3 wraps the socket's error in objects with addresses in memory."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def _document(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return data[:_WORDS].decode("utf-8", "replace")


def _said(document: Any) -> str:
    """Influx and Grafana both say ``message``."""
    text = document.get("message", "") if isinstance(document, dict) else document
    return " ".join(str(text or "no reason given").split())[:_WORDS]
