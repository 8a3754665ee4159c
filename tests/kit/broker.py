"""A real Mosquitto on a free port, in a folder of its own, with TLS and passwords where asked.

with Broker() as broker:
    with broker.subscribe("plc/#") as seen:
        …
"""

from __future__ import annotations

import datetime
import getpass
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.kit.common import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
# Debian's package has it.
PLUGIN = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"


class Authority:
    """A CA that issues certificates into ``folder``: ca.pem, <name>.pem, <name>.key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {folder.name}")])
        builder = self._builder(self._name, self._key, 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def issue(self, name: str, days: int = 30, host: str = "127.0.0.1") -> tuple[str, str]:
        """(certificate, key) for ``name`` and the address ``host``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(host))]
        certificate = (
            self._builder(subject, key, days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert_file), str(key_file)


@dataclass
class Seen:
    """What a subscriber has received, in order: (topic, payload, retain flag, properties)."""

    messages: list[tuple[str, bytes, bool, Any]] = field(default_factory=list)
    gaps: int = 0
    """How often the subscriber itself lost its connection: it may have missed messages then."""

    def topic(self, topic: str) -> list[bytes]:
        """Payloads of one topic."""
        return [p for t, p, _, _ in list(self.messages) if t == topic]


class Subscription:
    """An independent client (paho) that keeps what it is sent."""

    def __init__(self, broker: Broker, topics: tuple[str, ...]) -> None:
        self.seen = Seen()
        self._ready = threading.Event()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"watch-{os.getpid()}-{id(self)}",
            protocol=paho.MQTTv5,
        )
        if broker.users:
            client.username_pw_set("watch", broker.users["watch"])
        if broker.tls:
            assert broker.authority is not None
            cert, key = broker.authority.issue("watch")
            client.tls_set(str(broker.authority.ca), cert, key)

        def on_connect(c: paho.Client, *_: object) -> None:
            c.subscribe([(t, SubscribeOptions(qos=1)) for t in topics])

        def on_message(_c: object, _u: object, m: paho.MQTTMessage) -> None:
            self.seen.messages.append((m.topic, bytes(m.payload), m.retain, m.properties))

        def on_disconnect(*_: object) -> None:
            self.seen.gaps += 1

        client.on_connect = on_connect
        client.on_message = on_message
        client.on_disconnect = on_disconnect
        client.on_subscribe = lambda *_: self._ready.set()
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        self._client = client
        assert self._ready.wait(10), "the subscriber did not get its subscription"

    def __enter__(self) -> Seen:
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Broker:
    """Mosquitto. ``users``: name -> password; ``watch`` is added. ``acl``: text of an ACL file.
    ``dynsec``: the password of ``admin`` of the dynamic-security plugin, instead of both.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        client_certificates: bool = False,
        users: dict[str, str] | None = None,
        acl: str = "",
        options: str = "",
        dynsec: str = "",
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        assert MOSQUITTO is not None, "install mosquitto"
        self.folder = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
        self.host = host
        self.port = port or free_port()
        self.tls = tls
        self.users = {**users, "watch": "watch"} if users else {}
        self.authority = Authority(self.folder) if tls else None
        self._process: subprocess.Popen[bytes] | None = None
        user = getpass.getuser()
        lines = [
            f"user {user}",
            "per_listener_settings false",
            "log_dest file " + str(self.folder / "log"),
            "max_inflight_messages 2000",
            "max_queued_messages 1000000",
            # With `persistence true` in ``options``; else it would write where it was started.
            f"persistence_location {self.folder}/",
            f"listener {self.port} {host}",
        ]
        if self.authority is not None:
            cert, key = self.authority.issue("localhost", host=host)
            lines += [f"cafile {self.authority.ca}", f"certfile {cert}", f"keyfile {key}"]
            lines += [
                "tls_version tlsv1.2",
                f"require_certificate {str(client_certificates).lower()}",
            ]
        if dynsec:
            self.dynsec = self.folder / "dynamic-security.json"
            command = ["mosquitto_ctrl", "dynsec", "init", str(self.dynsec), "admin", dynsec]
            subprocess.run(command, check=True, capture_output=True)
            lines += ["allow_anonymous false", "use_username_as_clientid true"]
            lines += [f"plugin {PLUGIN}", f"plugin_opt_config_file {self.dynsec}"]
        elif self.users:
            passwords = self.folder / "passwords"
            passwords.touch(mode=0o600)
            for name, password in self.users.items():
                subprocess.run(
                    ["mosquitto_passwd", "-b", str(passwords), name, password], check=True
                )
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines += ["allow_anonymous true"]
        if acl:
            self.acl = self.folder / "acl"
            self.set_acl(acl)
            lines += [f"acl_file {self.acl}"]
        (self.folder / "mosquitto.conf").write_text("\n".join([*lines, options]) + "\n")

    def set_acl(self, text: str) -> None:
        """Writes the ACL file; a running broker reads it on ``reload``."""
        self.acl.touch(mode=0o600)
        self.acl.write_text(text)

    def reload(self) -> None:
        """SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Returns when it listens."""
        command = [str(MOSQUITTO), "-c", str(self.folder / "mosquitto.conf")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 10
        while True:
            assert self._process.poll() is None, self.log()
            try:
                socket.create_connection((self.host, self.port), 0.5).close()
                return
            except OSError:
                assert time.monotonic() < deadline_s, self.log()
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the running broker."""
        assert self._process is not None
        return self._process.pid

    def stop(self, kill: bool = False) -> None:
        """Ends it; its folder stays for another ``start``."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    def subscribe(self, *topics: str) -> Subscription:
        """A client that keeps what it is sent; use it with ``with``."""
        return Subscription(self, topics)

    def log(self) -> str:
        """What it has logged."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop(kill=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
