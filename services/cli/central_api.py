"""The control plane's API, as the commands of ``plc-edge central`` call it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from services.runtime.errors import PlcEdgeError
from services.runtime.tls import client_context

DEFAULT_URL = "http://127.0.0.1:8443"
TIMEOUT_S = 30.0
# A control plane that restarts is back within this; each request may be repeated, because it
# carries an Idempotency-Key.
TRIES, PAUSE_S = 4, 1.0
PAGE = 500


class Api:
    """One control plane, and the key to speak to it with."""

    def __init__(self, url: str | None, key_file: Path | None, ca: Path | None) -> None:
        """What is None comes from PLC_EDGE_CENTRAL_URL, _KEY and _CA."""
        self._url = (url or os.environ.get("PLC_EDGE_CENTRAL_URL", DEFAULT_URL)).rstrip("/")
        self._key = _key(key_file)
        authority = str(ca) if ca else os.environ.get("PLC_EDGE_CENTRAL_CA")
        self._pool = urllib3.PoolManager(
            timeout=TIMEOUT_S, retries=False, ssl_context=client_context(authority)
        )

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer's document. Raises PlcEdgeError with the refusal in words."""
        given = {k: v for k, v in query.items() if v is not None}
        address = f"{self._url}/v1/{path}" + (f"?{urlencode(given)}" if given else "")
        headers = {"authorization": f"Bearer {self._key}", "accept-language": "en"}
        if method != "GET":
            headers["idempotency-key"] = str(uuid.uuid4())
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else json.dumps(body)
        response = self._repeat(method, address, content, headers)
        try:
            document = json.loads(response.data) if response.data else None
        except ValueError:
            raise PlcEdgeError(f"{self._url}: the answer is no JSON; is this the API?") from None
        if response.status >= 400:
            raise PlcEdgeError(_said(document, response.status))
        return document

    def _repeat(
        self, method: str, address: str, body: str | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        for tried in range(1, TRIES + 1):
            try:
                response = self._pool.request(method, address, body=body, headers=headers)
            except urllib3.exceptions.HTTPError as e:
                if tried == TRIES:
                    raise PlcEdgeError(f"{self._url} cannot be reached: {e}") from None
            else:
                if response.status != 503 or tried == TRIES:
                    return response
            time.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def items(self, path: str, most: int | None = None, **query: Any) -> Iterator[dict[str, Any]]:
        """A list, part by part; at most ``most`` of it."""
        cursor = None
        while most is None or most > 0:
            size = PAGE if most is None else min(PAGE, most)
            part = self.call("GET", path, cursor=cursor, limit=size, **query)
            yield from part["items"]
            most = None if most is None else most - len(part["items"])
            cursor = part["next"]
            if cursor is None:
                return


def _key(file: Path | None) -> str:
    if file is None:
        key = os.environ.get("PLC_EDGE_CENTRAL_KEY", "")
        if not key:
            raise PlcEdgeError("no key: give --key-file, or set PLC_EDGE_CENTRAL_KEY")
        return key
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise PlcEdgeError(f"--key-file {file} cannot be read: {e}") from None


def _said(document: Any, status: int) -> str:
    if not isinstance(document, dict):
        return f"HTTP status {status}"
    lines = [f"{document.get('title')}: {document.get('detail')}"]
    for p in document.get("problems", []):
        where = ":".join(str(p[k]) for k in ("file", "line") if p.get(k))
        text = " ".join(part for part in (where, p.get("key"), p.get("message")) if part)
        lines.append(f"  {text}" + (f"\n    fix: {p['hint']}" if p.get("hint") else ""))
    return "\n".join(lines)
