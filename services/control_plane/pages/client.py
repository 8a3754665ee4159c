"""The API, asked in this process by whoever is signed in.

A page shows what the API answers to this identity, and nothing else: rights, tenants, refusals and
their words are decided in one place, and a page cannot forget them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from services.control_plane.identity import Actor


class Refused(Exception):
    """The API refused: ``document`` is its problem document, in the reader's language."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self.document = document
        super().__init__(f"{status} {document['type']}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer; ``body`` None: there is nothing to say."""

    body: Any
    etag: str | None


@dataclass(frozen=True, slots=True)
class Client:
    """One person's way to the API."""

    api: ASGIApp
    actor: Actor
    language: str

    async def get(self, path: str, **query: str | int | None) -> Any:
        """The document at ``/v1/<path>``; what is None is not asked for."""
        return (await self.call("GET", path, query=query)).body

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Raises Refused."""
        given = {"accept-language": self.language, **(headers or {})}
        content = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            given |= {"content-type": "application/json", "content-length": str(len(content))}
        asked = {k: v for k, v in (query or {}).items() if v not in (None, "")}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": f"/v1/{path}",
            "raw_path": quote(f"/v1/{path}").encode(),
            "root_path": "",
            "query_string": urlencode(asked).encode(),
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "server": None,
            "client": None,
            "actor": self.actor,
        }
        start: Message = {}
        parts = bytearray()

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            parts.extend(message.get("body", b""))

        await self.api(scope, receive, send)
        document: Any = json.loads(parts) if parts else None
        if start["status"] >= 400:
            raise Refused(start["status"], document)
        return Reply(document, Headers(raw=start["headers"]).get("etag"))
