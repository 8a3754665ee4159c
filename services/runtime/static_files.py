"""Files of a page, read once and answered from memory: no thread pool, no path of a request."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

# What every page shares: base.css, icon.svg.
SHARED = Path(__file__).parent / "static"
# Nothing from anywhere else, and nothing inline: no value that is shown can become code.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action {forms};"
    " frame-ancestors 'none'"
)


def security_headers(*, forms: bool = False) -> dict[str, str]:
    """Of every answer to a browser. ``forms``: whether the page may send any, to itself."""
    return {
        "content-security-policy": CONTENT_POLICY.format(forms="'self'" if forms else "'none'"),
        "x-content-type-options": "nosniff",
        # With no referrer at all, a browser says `Origin: null` of a form too (Fetch, 3.2).
        "referrer-policy": "same-origin" if forms else "no-referrer",
    }


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    zipped: bytes
    kind: str
    tag: str


class StaticFiles:
    """The files below some folders, by their relative names."""

    def __init__(self, *folders: Path) -> None:
        self._files = {
            file.relative_to(folder).as_posix(): _read(file)
            for folder in (SHARED, *folders)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }

    def answer(self, request: Request, name: str) -> Response:
        """One of them; 304 where the browser has it."""
        file = self._files.get(name)
        if file is None:
            return PlainTextResponse("no such file\n", 404)
        headers = {"etag": file.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.zipped, headers=headers, media_type=file.kind)
        return Response(file.content, headers=headers, media_type=file.kind)


def _read(file: Path) -> _File:
    content = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
    return _File(
        content,
        gzip.compress(content, mtime=0),
        f"{kind}; charset=utf-8" if text else kind,
        f'"{hashlib.sha256(content).hexdigest()[:16]}"',
    )
