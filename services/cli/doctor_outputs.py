"""Outputs, layer by layer: name, TCP, TLS, login, and whether each topic may be published.

The right to write is asked for without writing. MQTT knows no such question, and every topic that
the broker's ACL grants to a box is read by somebody. But a message of QoS 2 is handed over in two
steps: the broker judges it by the ACL when it comes (PUBLISH) and answers (PUBREC), and passes it
on only when it is released (PUBREL). So we never release it; with the connection it is forgotten.
Mosquitto does it so. A broker may also pass on at PUBLISH (MQTT 5.0, 4.3.3 leaves it open): for
that case the message is empty, not retained, and carries the user property ``plc-edge: doctor``.
"""

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
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from services.cli import doctor_opcua_server
from services.cli.doctor_finding import Failed, Finding
from services.cli.doctor_net import TIMEOUT_S, connect, file_expiry, handshake, tls_context
from services.runtime import secrets, tls_faults
from services.runtime.config import (
    BrokerOutput,
    Credentials,
    HttpOutput,
    OpcuaOutput,
    Output,
    SparkplugOutput,
    StdoutOutput,
    Tls,
)
from services.runtime.errors import ConfigError
from services.runtime.site import Site

# Messages in one connection: those that wait for their release count against the broker's Receive
# Maximum (its default in Mosquitto: 20).
ASKED_AT_ONCE = 500
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
    if isinstance(output, OpcuaOutput):
        yield from doctor_opcua_server.check(site, output, subject)
        return
    try:
        yield from _files(site, output, subject)
        if isinstance(output, BrokerOutput):
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


def _files(site: Site, output: BrokerOutput | HttpOutput, subject: str) -> Iterator[Finding]:
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
    reference = secrets.reference_of(holder, key, site.config.file.parent)
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


def _mqtt(site: Site, output: BrokerOutput, host: str, subject: str) -> Iterator[Finding]:
    tcp = connect(subject, host, output.port, "the broker")
    context = None
    if output.tls:
        context = tls_context(subject, output.tls, site.config.file.parent)
        secure, finding = handshake(subject, tcp, context, f"{host}:{output.port}")
        secure.close()
        yield finding
    else:
        tcp.close()
    for tenant, plcs in _tenants(site, output).items():
        topics = _topics(site, output, tenant, plcs)
        try:
            yield from _account(site, output, host, context, tenant, topics, subject)
        except Failed as e:
            mute = e.finding.code in ("not_mqtt", "closed")
            if mute and context is None and tls_faults.speaks_tls(host, output.port):
                raise _wants_tls(subject, f"{host}:{output.port}", http=False) from None
            yield e.finding


def _topics(site: Site, output: BrokerOutput, tenant: str, plcs: list[str]) -> list[str]:
    """What is published for one tenant."""
    name = site.config.site
    if isinstance(output, SparkplugOutput):
        kinds = ("DBIRTH", "DDATA", "DDEATH")
        node = [f"spBv1.0/{tenant}/{kind}/{name}" for kind in ("NBIRTH", "NDEATH")]
        return node + [f"spBv1.0/{tenant}/{kind}/{name}/{plc}" for plc in plcs for kind in kinds]
    return [*(f"plc/{tenant}/{plc}" for plc in plcs), f"edge/{tenant}/{name}/status"]


def _wants_tls(subject: str, where: str, http: bool) -> Failed:
    fault = tls_faults.wants_tls(where, http)
    return Failed(subject, fault.code, fault.text, fault.fix)


def _account(
    site: Site, output: BrokerOutput, host: str, context: ssl.SSLContext | None,
    tenant: str, topics: list[str], subject: str,
) -> Iterator[Finding]:  # fmt: skip
    """Login and rights of the account that one tenant's messages go out with."""
    account = output.doctor or output.accounts.get(tenant, output)
    password = _secret(site, account, "password", subject)
    answers: dict[str, int | None] = {}
    while len(answers) < len(topics):
        with _Session(site, output, host, context, tenant, account, password, subject) as session:
            if not answers:
                who = account.username or "without a user"
                where = f"{host}:{output.port}"
                yield Finding("ok", subject, "login", f"{where} takes the login ({who})")
            if mute := session.mute():
                yield Finding("warning", subject, "acl_unknown", *mute)
                return
            rest = topics[len(answers) :]
            answers |= session.ask(rest[: session.capacity])
    writes = not isinstance(output, SparkplugOutput)
    written = "`plc-edge infra render` writes it" if writes else "docs/sparkplug.md lists them"
    yield _rights(answers, account.username or "(none)", subject, written)


def _rights(answers: dict[str, int | None], user: str, subject: str, written: str) -> Finding:
    refused = sorted(t for t, code in answers.items() if code is not None and code >= 0x80)
    silent = sorted(t for t, code in answers.items() if code is None)
    if refused:
        return Finding(
            "error",
            subject,
            "acl",
            f"user {user} may not publish to {_some(refused)}",
            f"allow these topics for this user in the broker's ACL ({written})",
        )
    if silent:
        return Finding(
            "error",
            subject,
            "unacknowledged",
            f"no answer within {TIMEOUT_S:g} s for {_some(silent)}",
            "see the broker's log; it may refuse these topics or be overloaded",
        )
    return Finding("ok", subject, "acl", f"may publish to {len(answers)} topics")


def _tenants(site: Site, output: BrokerOutput) -> dict[str, list[str]]:
    """Tenant -> its PLCs, of those this output serves."""
    found: dict[str, list[str]] = {}
    for plc in site.config.plcs:
        tenant = site.config.tenant(plc)
        if output.locatarios is None or tenant in output.locatarios:
            found.setdefault(tenant, []).append(plc.id)
    return found


class _Asking(mqtt.Client):
    """paho, but it keeps the answers to messages of QoS 2 and never releases one."""

    def __init__(self, changed: threading.Condition, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.max_inflight_messages_set(0)  # without a limit of its own
        self.received: dict[int, int] = {}
        """Packet identifier -> reason code."""
        self._changed = changed

    def _handle_pubrec(self) -> MQTTErrorCode:
        # Inside paho, which has no call for it; 2.2 would release even what was refused.
        body = bytes(self._in_packet["packet"])
        with self._changed:
            self.received[int.from_bytes(body[:2])] = body[2] if len(body) > 2 else 0
            self._changed.notify_all()
        return MQTTErrorCode.MQTT_ERR_SUCCESS


class _Session:
    """One login, under a client id of its own so that the publisher keeps its connection.

    (A broker with ``use_username_as_clientid`` ends the publisher's all the same, unless
    ``doctor:`` names another account; it is back within seconds and loses nothing.)
    """

    def __init__(
        self, site: Site, output: BrokerOutput, host: str, context: ssl.SSLContext | None,
        tenant: str, account: Credentials, password: str, subject: str,
    ) -> None:  # fmt: skip
        self.subject = subject
        self.version5 = output.version == 5
        self._user = account.username
        self._answered = threading.Event()
        self._answer: ReasonCode | None = None
        self._changed = threading.Condition()
        self._lost = False
        self.capacity = ASKED_AT_ONCE
        """How many topics this connection can be asked for."""
        self._maximum_qos = 2
        self._client = _Asking(
            self._changed,
            CallbackAPIVersion.VERSION2,
            client_id=f"{site.config.site}-doctor-{tenant}-{os.getpid()}",
            protocol=mqtt.MQTTv5 if self.version5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self._client.on_connect = self._on_connect
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
                "closed",
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

    def _refused(self, host: str, output: BrokerOutput) -> Failed:
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

    def mute(self) -> tuple[str, str] | None:
        """Why this broker cannot be asked for rights, and what would help; None where it can."""
        if not self.version5:
            return (
                "MQTT 3.1.1 never says whether a topic is refused: not checked",
                "set `version: 5` if the broker speaks it (Mosquitto since 1.6)",
            )
        if self._maximum_qos < 2:
            return (
                f"the broker takes messages up to QoS {self._maximum_qos}: whether topics are"
                " refused cannot be asked without sending data",
                "see what `plc-edge status` says of this output: its publisher learns of refusals",
            )
        return None

    def ask(self, topics: list[str]) -> dict[str, int | None]:
        """Topic -> the reason code of the broker's PUBREC (MQTT 5.0, 3.5.2.1), None: no answer."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = ("plc-edge", "doctor")
        mids = {
            topic: self._client.publish(topic, b"", qos=2, properties=properties).mid
            for topic in topics
        }
        deadline_s = time.monotonic() + TIMEOUT_S
        received = self._client.received
        with self._changed:
            while len(received) < len(mids) and not self._lost:
                if not self._changed.wait(max(0.0, deadline_s - time.monotonic())):
                    break
            return {topic: received.get(mid) for topic, mid in mids.items()}

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, limits: Any) -> None:
        self.capacity = min(ASKED_AT_ONCE, getattr(limits, "ReceiveMaximum", ASKED_AT_ONCE))
        self._maximum_qos = getattr(limits, "MaximumQoS", 2)
        self._answer = code
        self._answered.set()

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
        secure, finding = handshake(subject, tcp, context, f"{host}:{port}", http=True)
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
        if url.scheme == "http" and tls_faults.speaks_tls(host, port):
            raise _wants_tls(subject, f"{host}:{port}", http=True) from None
        raise Failed(
            subject,
            "http",
            f"{output.url} does not answer ({type(e).__name__})",
            "see the server's log",
        ) from None
    finally:
        pool.close()
    if answer.status == 400 and url.scheme == "http" and tls_faults.speaks_tls(host, port):
        raise _wants_tls(subject, f"{host}:{port}", http=True)
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
