"""The centre's API, as far as a box speaks it. Calls block: they run beside the loop."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from services.fleet.core.journal import Target
from services.fleet.files import Texts
from services.fleet.identity import Identity
from services.runtime.errors import Unavailable
from services.runtime.tls import client_context, load_certificate
from services.runtime.tls_faults import explain

CONNECT_S, ANSWER_S = 10.0, 20.0
WAIT_S = 55.0
# A configuration of 4 MiB, every character of it escaped.
MAX_ANSWER_BYTES = 24 * 2**20
WATCH_MIN_S, WATCH_MAX_S = 5.0, 3_600.0


class CentreUnavailable(Unavailable):
    """The centre cannot be reached, or answers what it should not. ``code`` is one stable word."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the centre wants here, and its files."""

    target: Target
    texts: Texts


class Centre:
    """One control plane. ``certificate``: our key and certificate in one file, if we have any."""

    def __init__(self, url: str, ca: str | None, certificate: Path | None = None) -> None:
        """Raises CentreUnavailable where ``ca`` or the certificate is of no use."""
        self._url = url.rstrip("/")
        self._where = urlsplit(url).netloc
        try:
            context = client_context(ca)
            if certificate is not None:
                load_certificate(context, certificate, certificate)
        except OSError as e:
            raise CentreUnavailable("files", f"`fleet.ca` or our certificate: {e}") from None
        self._pool = urllib3.PoolManager(retries=False, ssl_context=context, maxsize=2)

    def close(self) -> None:
        """Ends its connections."""
        self._pool.clear()

    def claim(self, code: str, csr: str, version: str) -> Any:
        """The answer to a claim."""
        body = {"code": code, "csr": csr, "version": version}
        return self._call("POST", "claim", body, claims=True)

    def renew(self, identity: Identity, csr: str) -> Any:
        """The answer with another certificate."""
        return self._call("POST", identity.path("certificate"), {"csr": csr})

    def target(self, identity: Identity, have: int, wait_s: float, word: str = "") -> Given | None:
        """What is wanted here; None where that is ``have`` (and was not said anew since ``word``,
        where that is known), for as long as was waited.
        """
        asked = {"have": have, "wait_s": int(wait_s), **({"word": word} if word else {})}
        query = urlencode(asked)
        answer = self._call("GET", f"{identity.path('target')}?{query}", wait_s=wait_s)
        return None if answer is None else understand(answer)

    def report(self, identity: Identity, report: dict[str, Any]) -> dict[str, Any]:
        """Tells the centre how it is; its answer."""
        answer = self._call("PUT", identity.path("report"), report)
        return answer if isinstance(answer, dict) else {}

    def _call(
        self, method: str, path: str, body: Any = None, wait_s: float = 0.0, claims: bool = False
    ) -> Any:
        headers = {"accept-language": "en", "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        timeout = urllib3.Timeout(connect=CONNECT_S, read=wait_s + ANSWER_S)
        until_s = time.monotonic() + wait_s + 2 * ANSWER_S
        try:
            # No redirect: our certificate is for this server only.
            answer = self._pool.request(
                method, f"{self._url}/v1/{path}", body=content, headers=headers, timeout=timeout,
                preload_content=False, redirect=False,
            )  # fmt: skip
            try:
                data = self._read(answer, until_s)
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise self._fault(e) from None
        return self._judge(answer, data, claims)

    def _read(self, answer: urllib3.BaseHTTPResponse, until_s: float) -> bytes:
        """All of it, within bounds of size and time: a byte a minute is no answer either."""
        data = bytearray()
        while part := answer.read(65_536, decode_content=False):
            data += part
            if len(data) > MAX_ANSWER_BYTES:
                size = f"{MAX_ANSWER_BYTES >> 20} MiB"
                raise CentreUnavailable("oversize", f"{self._where} answers more than {size}")
            if time.monotonic() > until_s:
                raise CentreUnavailable("timeout", f"{self._where} does not finish its answer")
        return bytes(data)

    def _judge(self, answer: urllib3.BaseHTTPResponse, data: bytes, claims: bool) -> Any:
        status = answer.status
        if status == 204:
            return None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if status in (200, 201):
            if document is None:
                raise CentreUnavailable("garbage", f"{self._where} answers what is no JSON")
            return document
        said = f"status {status}"
        if isinstance(document, dict):
            words = [str(document[k]) for k in ("title", "detail") if document.get(k)]
            said = ": ".join(words)[:400] or said
        after = answer.headers.get("retry-after", "")
        after_s = min(float(after), 3_600.0) if after.isdecimal() else 0.0
        code = "claim" if claims and status in (403, 410, 422) else _CODES.get(status, "refused")
        if status >= 500:
            code = "centre_fault"
        if not claims and status in (401, 403):
            said = f"this box is not accepted ({said}): `plc-edge fleet claim` with a new code"
        text = f"{self._where}: {said}"
        raise CentreUnavailable(code, text, status=status, retry_after_s=after_s)

    def _fault(self, error: Exception) -> CentreUnavailable:
        where = self._where
        if isinstance(error, CentreUnavailable):
            return error
        tls = _find(error, ssl.SSLError)
        if tls is not None:
            fault = explain(tls, where, http=True)
            fix = _FIXES.get(fault.code, fault.fix)
            return CentreUnavailable(f"tls_{fault.code}", f"{fault.text}: {fix}")
        kinds = urllib3.exceptions
        if _find(error, kinds.NameResolutionError) is not None:
            return CentreUnavailable("dns", f"no address for {where}: check DNS and `fleet.url`")
        if isinstance(error, kinds.NewConnectionError):
            return CentreUnavailable("no_connection", f"nobody answers at {where}")
        if isinstance(error, kinds.TimeoutError):
            return CentreUnavailable("timeout", f"no answer from {where}")
        return CentreUnavailable("broken", f"{where}: {type(error).__name__}: {error}"[:400])


_CODES = {401: "not_accepted", 403: "not_accepted", 404: "not_found", 429: "too_many"}
_FIXES = {
    "ca": "set `fleet.ca` to the certificate of the CA that signed the centre's",
    "client_certificate": "ours has expired or was revoked: `plc-edge fleet claim` with a new code",
    "certificate_name": "set `fleet.url` to a name that stands in the certificate",
    "no_tls": "correct `fleet.url`",
}


def _find(error: BaseException | None, kind: type[Any]) -> Any:
    """An exception of that kind inside another's story."""
    for _ in range(8):
        if error is None or isinstance(error, kind):
            return error
        held = (*error.args, getattr(error, "reason", None))
        inner = [a for a in held if isinstance(a, Exception)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return None


def understand(answer: Any) -> Given:
    """The centre's target. Raises CentreUnavailable where it is none."""
    try:
        version, layouts, rollout = answer["version"], answer["layouts"], answer.get("rollout")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError("version")
        if not isinstance(layouts, dict):
            raise ValueError("layouts")
        for text in (answer["yaml"], *layouts, *layouts.values(), rollout or ""):
            if not isinstance(text, str):
                raise ValueError("no text")
            text.encode()  # a lone surrogate is in no file
        texts = Texts(answer["yaml"], layouts)
        if texts.sha256 != answer["sha256"]:
            raise ValueError("sha256 is not that of the files")
        watch_s = float(answer.get("watch_s") or 0)
        if watch_s and not WATCH_MIN_S <= watch_s <= WATCH_MAX_S:
            raise ValueError("watch_s")
        target = Target(
            version, texts.sha256, rollout, watch_s, answer.get("overwrite") is True,
            str(answer.get("word") or ""),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        text = f"the centre's target cannot be understood ({type(e).__name__}: {e})"
        raise CentreUnavailable("garbage", text[:300]) from None
    return Given(target, texts)
