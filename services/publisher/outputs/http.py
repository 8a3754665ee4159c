"""HTTP output: batches as a JSON array or InfluxDB line protocol, in order, one request at a time.

2xx settles. 400, 413 and 422 are about the content: the batch is halved until the message at fault
stands alone, which is a dead letter. Everything else (credentials, path, load, the network) is held
and tried again: no message is guilty of that.
"""

from __future__ import annotations

import base64
import gzip
import random
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3

from services.consumer.row import Row
from services.mqtt.network import explain, tls_context, unavailable
from services.publisher.outputs import influx
from services.publisher.outputs.base import CLOSE_WAIT_S, Desk
from services.runtime import secrets, tls_faults
from services.runtime.background import Background
from services.runtime.errors import ConfigError, Problem, Unavailable
from services.runtime.process import Process

CONTENT_STATUSES = frozenset((400, 413, 422))
# "Client sent an HTTP request to an HTTPS server", "You're speaking plain HTTP to an SSL-enabled …"
_OF_TLS = re.compile(r"https|ssl|tls", re.I)
RETRY_S, RETRY_MAX_S = 0.5, 5.0
# A server that asks for patience gets it, within reason.
RETRY_AFTER_MAX_S = 60.0
# JSON of machines repeats itself: level 1 gives 8:1 at a third of the CPU of level 6.
GZIP_LEVEL = 1
EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    text: str
    retry_after_s: float | None


class HttpOutput:
    """Posts rows; ``_queue`` holds them in order, ``_cut`` is how many go into the next request."""

    def __init__(self, process: Process, desk: Desk) -> None:
        self._process = process
        self._desk = desk
        self._config: dict[str, Any] = process.config["output"]
        self._background = Background(process)
        self._batch: int = self._config["batch"]
        self.window = 2 * self._batch
        url = urlsplit(self._config["url"])
        # Without user information and query: both may hold secrets.
        self.target = f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}{url.path}"
        self._where = f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}"
        self._precision = parse_qs(url.query).get("precision", ["ns"])[0]
        if self._precision not in influx.PRECISIONS:
            known = ", ".join(influx.PRECISIONS)
            key, wrong = f"outputs.{process.item}.url", f"precision={self._precision}"
            raise ConfigError([Problem("config.yaml", key, f"{wrong} is not one of {known}")])
        self._queue: deque[Row] = deque()
        self._sizes: list[int] = []
        """Sizes of the parts of a refused batch that are still to be tried, last one first."""
        self._busy = False
        self._held = False
        self._closing = False
        self._failures = 0
        self._pool: urllib3.PoolManager | None = None

    def deliver(self, rows: Sequence[Row]) -> None:
        """Takes rows."""
        self._queue.extend(rows)
        self._next()

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Heartbeats are for topics; changes of a PLC's state are messages of their own."""

    def details(self) -> dict[str, object]:
        """For the State frame."""
        return {"host": self._where, "queued": len(self._queue)}

    def close(self) -> None:
        """Waits a moment for the request under way."""
        self._closing = True
        deadline_s = time.monotonic() + CLOSE_WAIT_S
        while self._busy and time.monotonic() < deadline_s:
            self._process.step()
            time.sleep(0.002)

    # -- requests ------------------------------------------------------------------------

    def _next(self) -> None:
        if self._busy or self._held or self._closing or not self._queue:
            return
        size = self._sizes[-1] if self._sizes else self._batch
        rows = list(islice(self._queue, size))
        self._busy = True
        self._background.run(lambda: self._post(rows), lambda result: self._answered(rows, result))

    def _post(self, rows: list[Row]) -> Answer:
        """In a thread. Raises Unavailable, ConfigError (secrets)."""
        if self._config["format"] == "influx":
            try:
                body = b"\n".join(influx.line(row, self._precision) for row in rows)
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                # Found in the same way as what the server refuses.
                return Answer(400, f"no line protocol can be made of it: {e!r}", None)
            content = "text/plain; charset=utf-8"
        else:
            body = b"[" + b",".join(row.body for row in rows) + b"]"
            content = "application/json"
        headers = {**self._config["headers"], **self._credentials(), "Content-Type": content}
        if self._config["gzip"]:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if self._pool is None:
            https = self._config["url"].startswith("https:")
            context = tls_context(self._config["tls"]) if https else None
            self._pool = urllib3.PoolManager(
                num_pools=1,
                maxsize=1,
                ssl_context=context,
                timeout=urllib3.Timeout(total=self._config["timeout"]),
                retries=False,
            )
        try:
            answer = self._pool.request(
                "POST", self._config["url"], body=body, headers=headers, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as e:
            # A new pool reads the certificates again.
            self._pool = None
            fault = _explain(e, self._where)
            if fault.code == "lost" and self._wants_tls():
                fault = unavailable(tls_faults.wants_tls(self._where, http=True))
            raise fault from None
        except ValueError:
            # Not what it says: http.client quotes the header, and that may be the token.
            words = "token, password or `headers:` hold what no HTTP header may (a line break?)"
            raise Unavailable("auth", f"{self._where}: {words}") from None
        text = answer.data[:2_000].decode("utf-8", "replace")
        if answer.status == 400 and _OF_TLS.search(text) and self._wants_tls():
            # No fault of the messages: what many servers say at their https port to plain HTTP.
            raise unavailable(tls_faults.wants_tls(self._where, http=True))
        return Answer(answer.status, text, _retry_after(answer.headers.get("Retry-After")))

    def _wants_tls(self) -> bool:
        """Whether the server speaks TLS, and we do not; asks it."""
        url = urlsplit(self._config["url"])
        return url.scheme == "http" and tls_faults.speaks_tls(url.hostname or "", url.port or 80)

    def _credentials(self) -> dict[str, str]:
        """Read for each request: a rotated token needs no restart."""
        config = self._config
        if config.get("token"):
            scheme = "Token" if config["format"] == "influx" else "Bearer"
            return {"Authorization": f"{scheme} {secrets.resolve(config['token'])}"}
        if config.get("username"):
            password = secrets.resolve(config["password"]) if config.get("password") else ""
            basic = base64.b64encode(f"{config['username']}:{password}".encode()).decode()
            return {"Authorization": f"Basic {basic}"}
        return {}

    def _answered(self, rows: list[Row], result: Any) -> None:
        self._busy = False
        if isinstance(result, ConfigError):
            self._hold("auth", str(result))
        elif isinstance(result, Unavailable):
            self._hold(result.code, result.message)
        elif isinstance(result, Exception):
            raise result  # a bug: ends the process with a traceback
        elif 200 <= result.status < 300:
            self._gone(len(rows))
            self._failures = 0
            self._desk.status("ok")
            self._desk.delivered(rows)
        elif result.status in CONTENT_STATUSES:
            self._refused(rows, result)
        else:
            self._hold(*_held(result, self.target), result.retry_after_s)
        self._next()

    def _gone(self, count: int) -> None:
        """The first ``count`` rows have left the queue."""
        for _ in range(count):
            self._queue.popleft()
        if self._sizes:
            self._sizes.pop()

    def _refused(self, rows: list[Row], answer: Answer) -> None:
        if len(rows) == 1:
            self._gone(1)
            excerpt = " ".join(answer.text.split())[:EXCERPT_CHARACTERS]
            self._desk.refused(rows[0], f"HTTP {answer.status}: {excerpt}")
            return
        if self._sizes:
            self._sizes.pop()
        half = len(rows) // 2
        self._sizes += [len(rows) - half, half]

    def _hold(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        self._held = True
        self._desk.held("held")
        self._desk.status("down", code, message)
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._failures, 8))
        self._failures += 1
        pause_s *= random.uniform(0.5, 1.0)
        if retry_after_s is not None:
            pause_s = max(pause_s, min(retry_after_s, RETRY_AFTER_MAX_S))
        self._process.at(time.monotonic() + pause_s, self._release)

    def _release(self) -> None:
        self._held = False
        self._next()


def _held(answer: Answer, target: str) -> tuple[str, str]:
    """(code, words) of a status that is not the content's fault."""
    status = answer.status
    if status == 401:
        return "auth", f"{target} refuses the credentials (401): check token or password"
    if status == 403:
        return "acl", f"{target} forbids writing (403): the account needs the right to write"
    if status in (404, 405, 410):
        return "path", f"{target} does not take messages ({status}): check `url`"
    if 300 <= status < 400:
        return "path", f"{target} sends us elsewhere ({status}): write the final address in `url`"
    if status in (408, 504):
        return "timeout", f"{target} took too long ({status})"
    if status == 429:
        return "busy", f"{target} asks for a pause (429)"
    return "server", f"{target} answers {status}: see the server's log"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, a number or a date; None where there is none."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _explain(error: Exception, where: str) -> Unavailable:
    """urllib3 wraps the socket's error; the words are about the cause."""
    # A refused connection is a TimeoutError, too, in urllib3's family tree.
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, urllib3.exceptions.TimeoutError) and not refused:
        return Unavailable("timeout", f"no answer from {where}: check address and firewalls")
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and not isinstance(seen, urllib3.exceptions.HTTPError):
            return explain(seen, where, http=True)
        seen = seen.__cause__ or seen.__context__
    return Unavailable("lost", f"{where}: {type(error).__name__}")


def make(process: Process, desk: Desk) -> HttpOutput:
    """For the table of kinds."""
    return HttpOutput(process, desk)
