"""Sends an e-mail by SMTP, a connection each: alarms and shift reports. Called in threads."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from services.runtime import secrets
from services.runtime.errors import Refused, Unavailable
from services.runtime.tls import client_context


def send(config: Mapping[str, Any], message: EmailMessage) -> None:
    """One attempt. ``config``: host, port, security, ca, username, password (a reference), timeout
    in s. Raises Unavailable; Refused only where the server refuses every address for ever.
    """
    where = f"{config['host']}:{config['port']}"
    try:
        with _connect(config) as server:
            if config["username"]:
                password = secrets.resolve(config["password"]) if config["password"] else ""
                server.login(config["username"], password)
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as e:
        codes = sorted({code for code, _ in e.recipients.values()})
        text = f"{where} refuses every address: {codes}"
        if codes[0] >= 500:
            raise Refused(text) from None
        raise Unavailable("refused", text) from None
    except smtplib.SMTPResponseException as e:
        raise Unavailable("refused", f"{where} answers {e.smtp_code}") from None
    except (smtplib.SMTPException, OSError) as e:
        raise Unavailable("lost", f"{where}: {type(e).__name__}") from None


def _connect(config: Mapping[str, Any]) -> smtplib.SMTP:
    host, port, timeout_s = config["host"], config["port"], config["timeout"]
    context: ssl.SSLContext | None = None
    if config["security"] != "none":
        context = client_context(config["ca"])
    if config["security"] == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
    server = smtplib.SMTP(host, port, timeout=timeout_s)
    if context is not None:
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server
