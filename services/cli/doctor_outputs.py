"""Outputs, layer by layer: name, TCP, TLS, login, and whether each topic may be published."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import urllib3
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from services.cli.doctor_finding import Failed, Finding
from services.cli.doctor_net import TIMEOUT_S, connect, file_expiry, handshake, tls_context
from services.runtime import secrets
from services.runtime.config import Credentials, HttpOutput, MqttOutput, Output, StdoutOutput, Tls
from services.runtime.errors import ConfigError
from services.runtime.loader import Site, secret_reference

# More than this between the server's clock and ours is worth a word: certificates and queries
# that ask for "the last minute" go wrong.
CLOCK_OFF_S = 30.0


def check(site: Site, output: Output, running: dict[str, Any] | None) -> Iterator[Finding]:
    """All findings about one output; ``running`` is /api/status, where the site runs."""
    subject = f"output {output.name}"
    yield from _said(output, running, subject)
    if isinstance(output, StdoutOutput):
        yield Finding("ok", subject, "stdout", "writes to the process's log")
        return
    try:
        yield from _files(site, output, subject)
        if isinstance(output, MqttOutput):
            for host in output.all_hosts:
                yield from _mqtt(site, output, host, subject)
        else:
            yield from _http(site, output, subject)
    except Failed as e:
        yield e.finding


def _said(output: Output, running: dict[str, Any] | None, subject: str) -> Iterator[Finding]:
    """What the running publisher itself says: it knows what its own account may not do."""
    for row in (running or {}).get("outputs", []):
        if row["name"] == output.name and row["error"]:
            error = row["error"]
            waiting = f"; {row['pending']} messages wait" if row["pending"] else ""
            yield Finding(
                "error", subject, f"publisher_{error['code'] or row['status']}",
                f"its publisher says: {error['message']}{waiting}", "see what follows",
            )  # fmt: skip


def _files(site: Site, output: MqttOutput | HttpOutput, subject: str) -> Iterator[Finding]:
    folder = site.config.file.parent
    if not output.tls:
        return
    for what, file in (("the CA certificate", output.tls.ca), ("our certificate", output.tls.cert)):
        if file is not None:
            finding = file_expiry(subject, what, folder / file)
            if finding.level != "ok":
                yield finding


def _secret(site: Site, holder: Credentials, key: str, subject: str) -> str:
    """The secret behind a key, "" when none is given; raises Failed when it cannot be read."""
    reference = secret_reference(holder, key, site.config.file.parent)
    if reference is None:
        return str(getattr(holder, key, None) or "")
    try:
        return secrets.resolve(reference)
    except ConfigError as e:
        problem = e.problems[0]
        raise Failed(
            subject, "secret", f"{problem.file}: {problem.message}", problem.hint
        ) from None


# -- MQTT ---------------------------------------------------------------------------------


def _mqtt(site: Site, output: MqttOutput, host: str, subject: str) -> Iterator[Finding]:
    tcp = connect(subject, host, output.port, "the broker")
    context = None
    if output.tls:
        context = tls_context(subject, output.tls, site.config.file.parent)
        secure, finding = handshake(subject, tcp, context, host)
        secure.close()
        yield finding
    else:
        tcp.close()
    for tenant, plcs in _tenants(site, output).items():
        account = output.doctor or output.accounts.get(tenant, output)
        password = _secret(site, account, "password", subject)
        try:
            session = _Session(site, output, host, context, tenant, account, password, subject)
        except Failed as e:
            yield e.finding
            continue
        with session:
            who = account.username or "without a user"
            where = f"{host}:{output.port}"
            yield Finding("ok", subject, "login", f"{where} takes the login ({who})")
            topics = [f"plc/{tenant}/{plc}" for plc in plcs]
            yield session.publish([*topics, f"edge/{tenant}/{site.config.site}/status"])


def _tenants(site: Site, output: MqttOutput) -> dict[str, list[str]]:
    """Tenant -> its PLCs, of those this output serves."""
    found: dict[str, list[str]] = {}
    for plc in site.config.plcs:
        tenant = site.config.tenant(plc)
        if output.locatarios is None or tenant in output.locatarios:
            found.setdefault(tenant, []).append(plc.id)
    return found


class _Session:
    """One login, under a client id of its own so that the publisher keeps its connection.

    (A broker with ``use_username_as_clientid`` ends the publisher's all the same, unless
    ``doctor:`` names another account; it is back within seconds and loses nothing.)
    """

    def __init__(
        self, site: Site, output: MqttOutput, host: str, context: ssl.SSLContext | None,
        tenant: str, account: Credentials, password: str, subject: str,
    ) -> None:  # fmt: skip
        self.subject = subject
        self.version5 = output.version == 5
        self._user = account.username
        self._answered = threading.Event()
        self._answer: ReasonCode | None = None
        self._acks: dict[int, ReasonCode] = {}
        self._changed = threading.Condition()
        self._lost = False
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{site.config.site}-doctor-{tenant}-{os.getpid()}",
            protocol=mqtt.MQTTv5 if self.version5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        if account.username:
            self._client.username_pw_set(account.username, password or None)
        if context is not None:
            self._client.tls_set_context(context)
        self._client.connect_timeout = TIMEOUT_S
        try:
            self._client.connect(host, output.port, keepalive=10)
        except OSError as e:
            raise Failed(
                subject,
                "login",
                f"{host}:{output.port} ends the connection ({e})",
                "see the broker's log",
            ) from None
        self._client.loop_start()
        if not self._answered.wait(TIMEOUT_S):
            self.close()
            raise Failed(
                subject,
                "not_mqtt",
                f"{host}:{output.port} does not answer as an MQTT broker",
                "check the port (8883 with TLS, 1883 without), and whether a client certificate"
                " is needed (tls.cert, tls.key)",
            )
        if self._answer is None or self._answer.is_failure:
            self.close()
            raise self._refused(host, output)

    def _refused(self, host: str, output: MqttOutput) -> Failed:
        where = f"{host}:{output.port}"
        if self._answer is None:
            return Failed(
                self.subject,
                "closed",
                f"{where} closes the connection at login",
                "does the broker want a client certificate (tls.cert, tls.key), or MQTT 3.1.1"
                ' (version: "3.1.1")? Its log says why',
            )
        # MQTT 5.0, 3.2.2.2; 3.1.1's 4 and 5 are mapped to the same by paho
        if self._answer.value in (0x86, 0x87):
            return Failed(
                self.subject,
                "login",
                f"{where} refuses user {self._user or '(none)'} or the password"
                f" ({str(self._answer).lower()})",
                "correct username and password_file; on the broker: mosquitto_passwd or"
                " mosquitto_ctrl dynsec",
            )
        return Failed(
            self.subject,
            "login",
            f"{where} refuses the login ({self._answer})",
            "see the broker's log",
        )

    def publish(self, topics: list[str]) -> Finding:
        """Publishes an empty message, not retained, to each; says which are refused."""
        if not self.version5:
            return Finding(
                "warning",
                self.subject,
                "acl_unknown",
                "MQTT 3.1.1 never says whether a topic is refused: not checked",
                "set `version: 5` if the broker speaks it (Mosquitto since 1.6)",
            )
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = ("plc-edge", "doctor")
        topic_of = {
            self._client.publish(topic, b"", qos=1, properties=properties).mid: topic
            for topic in topics
        }
        deadline_s = time.monotonic() + TIMEOUT_S
        with self._changed:
            while len(self._acks.keys() & topic_of.keys()) < len(topic_of) and not self._lost:
                if not self._changed.wait(max(0.0, deadline_s - time.monotonic())):
                    break
            refused = [topic_of[mid] for mid, code in self._acks.items() if code.value >= 0x80]
            missing = [topic for mid, topic in topic_of.items() if mid not in self._acks]
        if refused:
            return Finding(
                "error",
                self.subject,
                "acl",
                f"user {self._user or '(none)'} may not publish to {_some(sorted(refused))}",
                "allow these topics for this user in the broker's ACL"
                " (`plc-edge infra render` writes it)",
            )
        if missing:
            return Finding(
                "error",
                self.subject,
                "unacknowledged",
                f"no acknowledgement within {TIMEOUT_S:g} s for {_some(sorted(missing))}"
                + (" (the broker ended the connection)" if self._lost else ""),
                "see the broker's log; it may refuse these topics or be overloaded",
            )
        return Finding("ok", self.subject, "acl", f"may publish to {len(topics)} topics")

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        self._answer = code
        self._answered.set()

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: ReasonCode, _p: Any) -> None:
        with self._changed:
            self._acks[mid] = code
            self._changed.notify_all()

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, _code: ReasonCode, _p: Any) -> None:
        self._answered.set()
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def close(self) -> None:
        """Says goodbye and ends paho's thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# -- HTTP ---------------------------------------------------------------------------------


def _http(site: Site, output: HttpOutput, subject: str) -> Iterator[Finding]:
    url = urlsplit(output.url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    tcp = connect(subject, host, port, "the server")
    pool: urllib3.HTTPConnectionPool
    if url.scheme == "https":
        context = tls_context(subject, output.tls or Tls(), site.config.file.parent)
        secure, finding = handshake(subject, tcp, context, host)
        secure.close()
        yield finding
        pool = urllib3.HTTPSConnectionPool(host, port, ssl_context=context)
    else:
        tcp.close()
        pool = urllib3.HTTPConnectionPool(host, port)
    headers = dict(output.headers)
    token = _secret(site, output, "token", subject)
    if token:
        scheme = "Token" if output.format == "influx" else "Bearer"
        headers["Authorization"] = f"{scheme} {token}"
    elif output.username:
        password = _secret(site, output, "password", subject)
        headers |= urllib3.make_headers(basic_auth=f"{output.username}:{password}")
    path = f"{url.path or '/'}{'?' + url.query if url.query else ''}"
    # InfluxDB takes a write without points; elsewhere a HEAD asks without sending anything.
    method = "POST" if output.format == "influx" else "HEAD"
    body = b"" if method == "POST" else None
    try:
        answer = pool.request(
            method,
            path,
            body=body,
            headers=headers,
            retries=False,
            timeout=TIMEOUT_S,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as e:
        raise Failed(
            subject,
            "http",
            f"{output.url} does not answer ({type(e).__name__})",
            "see the server's log",
        ) from None
    finally:
        pool.close()
    yield _judge(answer, method, output, subject)
    yield from _server_clock(answer, host, subject)


# What a server that knows only POST says of a HEAD: not implemented, not allowed, not understood.
_NO_PROBES = (400, 405, 501)


def _judge(
    answer: urllib3.BaseHTTPResponse, method: str, output: HttpOutput, subject: str
) -> Finding:
    status = answer.status
    if status in (401, 403):
        return Finding(
            "error",
            subject,
            "login",
            f"{output.url} refuses the credentials ({status})",
            "correct token_file, or username and password_file; the token needs the right to write",
        )
    if method == "HEAD" and status in _NO_PROBES:
        return Finding(
            "ok",
            subject,
            "http",
            f"{output.url} is reached; it does not answer probes ({method}: {status}), so path and"
            " credentials are not checked",
        )
    if method == "HEAD" and status == 404:
        return Finding(
            "warning",
            subject,
            "path",
            f"{output.url} is reached and says that it does not exist ({method}: 404)",
            "check the path in the url; nothing is wrong where the server answers 404 to all but"
            " POST: see what `plc-edge status` says of this output",
        )
    if status == 404:
        return Finding(
            "error",
            subject,
            "path",
            f"{output.url} does not exist there (404)",
            "check path, org and bucket in the url",
        )
    if status in (405, 501):
        return Finding(
            "error",
            subject,
            "path",
            f"{output.url} does not take POST ({status})",
            "check the path in the url",
        )
    if status >= 500:
        return Finding(
            "error",
            subject,
            "server",
            f"{output.url} answers {status}",
            "the server has trouble: see its log",
        )
    return Finding("ok", subject, "http", f"{output.url} answers ({status})")


def _server_clock(answer: urllib3.BaseHTTPResponse, host: str, subject: str) -> Iterator[Finding]:
    try:
        off_s = time.time() - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return
    if abs(off_s) > CLOCK_OFF_S:
        way = "ahead of" if off_s > 0 else "behind"
        yield Finding(
            "error",
            subject,
            "clock_off",
            f"this box's clock is {abs(off_s):.0f} s {way} that of {host}",
            "set up NTP on this box (`timedatectl set-ntp true`, chrony)",
        )
