"""What the metrics service of this box answers, asked with the address and credentials that it was
given: for ``plc-edge status``, ``doctor`` and the fleet process.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import urllib3

from services.runtime import secrets
from services.runtime.tls import client_context

TIMEOUT_S = 5.0


class MetricsUnavailable(Exception):
    """The metrics service does not answer; says why."""


def ask(runtime: Path, path: str = "/api/status") -> dict[str, Any]:
    """The metrics service's answer to a GET, with the address and credentials that it was given.

    ``runtime`` is the runtime directory. Raises MetricsUnavailable.
    """
    file = runtime / "conf" / "metrics.json"
    try:
        panel = json.loads(file.read_bytes())["metrics"]
    except FileNotFoundError:
        raise MetricsUnavailable(f"no {file}: plc-edge does not run here") from None
    except PermissionError:
        raise MetricsUnavailable(f"no permission on {file}: run as the plc-edge user") from None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(panel["host"], panel["host"])
    host = f"[{host}]" if ":" in host else host
    headers = {}
    if panel["username"]:
        password = secrets.resolve(panel["password"])
        headers = urllib3.make_headers(basic_auth=f"{panel['username']}:{password}")
    tls: dict[str, Any] = {}
    if panel["tls"]:
        # The service's own certificate is the only one accepted, whatever name it carries.
        context = client_context(panel["tls"]["cert"])
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        tls = {"ssl_context": context, "assert_hostname": False}
    url = f"{'https' if tls else 'http'}://{host}:{panel['port']}{path}"
    try:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S, **tls) as pool:
            answer = pool.request("GET", url, headers=headers)
            if answer.status != 200:
                raise MetricsUnavailable(f"{url} answers {answer.status}")
            document: dict[str, Any] = answer.json()
            return document
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
        raise MetricsUnavailable(f"{url} does not answer ({_reason(e)})") from None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "nobody listens there"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s"
    return type(error).__name__
