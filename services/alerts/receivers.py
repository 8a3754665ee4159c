"""How a notification goes out: a webhook's POST, an e-mail. Called in threads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
import urllib3

from services.alerts import alertmanager
from services.alerts.core.digest import Body, transitions
from services.runtime import mail, secrets
from services.runtime.errors import Refused, Unavailable
from services.runtime.tls import client_context

# It is about the content; everything else (credentials, path, load, the network) may be mended.
CONTENT_STATUSES = frozenset((400, 413, 422))
SIGNATURE, TIMESTAMP = "X-Plc-Edge-Signature", "X-Plc-Edge-Timestamp"

Send = Callable[[dict[str, Any], bytes], None]


def receiver(config: dict[str, Any]) -> Send:
    """A function (notification, its JSON) that returns when the receiver has taken it. Raises
    Unavailable, Refused, ConfigError (secrets).
    """
    return Webhook(config) if config["type"] == "webhook" else Email(config)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``sha256=…`` of ``<timestamp>.<body>``: whoever checks both takes no old one for new."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


class Webhook:
    """POST of JSON."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        url = urlsplit(config["url"])
        self._where = f"{url.scheme}://{url.hostname}"  # the path may be the secret
        self._pool: urllib3.PoolManager | None = None

    def __call__(self, notification: dict[str, Any], body: bytes) -> None:
        """One attempt."""
        config = self._config
        if config["format"] == "alertmanager":
            said = alertmanager.payload(notification, config["name"], config["external_url"])
            body = orjson.dumps(said)
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", "Idempotency-Key": notification["id"],
                   TIMESTAMP: timestamp}  # fmt: skip
        if config["secret"]:
            headers[SIGNATURE] = signature(secrets.resolve(config["secret"]), timestamp, body)
        if config["username"]:
            password = secrets.resolve(config["password"]) if config["password"] else ""
            pair = base64.b64encode(f"{config['username']}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        try:
            if self._pool is None:
                https = config["url"].startswith("https:")
                context = client_context(config["ca"]) if https else None
                self._pool = urllib3.PoolManager(
                    num_pools=1,
                    maxsize=1,
                    ssl_context=context,
                    timeout=urllib3.Timeout(total=config["timeout"]),
                    retries=False,
                )
            answer = self._pool.request(
                "POST", config["url"], body=body, headers=headers, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as e:
            self._pool = None  # a new one reads the certificate again
            raise Unavailable("lost", f"{self._where}: {type(e).__name__}") from None
        if answer.status in CONTENT_STATUSES:
            raise Refused(f"{self._where} answers {answer.status}")
        if not 200 <= answer.status < 300:
            raise Unavailable("refused", f"{self._where} answers {answer.status}")


class Email:
    """A message by SMTP, a connection each."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def __call__(self, notification: dict[str, Any], body: bytes) -> None:
        """One attempt. Refused only where the server refuses every address for ever."""
        mail.send(self._config, message(self._config, notification))


def message(config: dict[str, Any], notification: dict[str, Any]) -> EmailMessage:
    """The mail that says it."""
    said = EmailMessage()
    said["From"] = config["from"]
    said["To"] = ", ".join(config["to"])
    said["Subject"] = " ".join(_subject(notification).split())
    said["Date"] = format_datetime(datetime.now(UTC))
    said["Message-ID"] = f"<{notification['id']}@plc-edge>"
    told = list(transitions(notification))
    parts = [_shown(t) for t in told]
    if (more := notification.get("count", 1) - len(told)) > 0:
        counts = notification["rules"].items()
        parts.append(
            f"... {more} more\n"
            + "".join(f"{rule}: {begun} begun, {ended} ended\n" for rule, (begun, ended) in counts)
        )
    said.set_content("\n".join(parts))
    return said


def _subject(body: Body) -> str:
    if "alerts" in body:
        return f"[{body['count']} ALARMES] {body['text'].partition(': ')[2]}"
    step = f" {body['escalation']}" if "escalation" in body else ""
    return f"[{body['to'].upper()}{step}] {body['text'] or body['rule']}"


def _shown(body: Body) -> str:
    shown = {k: v for k, v in body.items() if v is not None}
    for key in ("ts", "began"):
        if key in shown:
            shown[key] = datetime.fromtimestamp(shown[key] / 1_000, UTC).isoformat()
    return "".join(f"{k}: {v}\n" for k, v in shown.items())
