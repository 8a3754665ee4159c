"""The demo's own MQTT broker: TLS, a password, loopback only; gone with the demo.

Debian's auto-started Mosquitto on port 1883 is left alone: this one has ports and files of its
own. Where nobody listens on 1883, a second, read-only listener lets a plain
``mosquitto_sub -t 'plc/#'`` show the messages.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import secrets
import shutil
import socket
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

EDGE_USER, VIEWER_USER = "edge", "viewer"
PLAIN_PORT = 1883
# Of mosquitto_passwd 2.0: $7$ is PBKDF2 with SHA-512, 101 rounds.
_ROUNDS = 101


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def find_mosquitto() -> str | None:
    """Mosquitto's program; Debian puts it where a user's PATH does not look."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class DemoBroker:
    """Files of one broker in ``folder``, and the command that runs it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.port = free_port()
        self.plain_port = PLAIN_PORT if is_free(PLAIN_PORT) else None
        self.ca = folder / "ca.pem"
        self.passwords = {EDGE_USER: secrets.token_urlsafe(18), VIEWER_USER: "viewer"}
        for user, password in self.passwords.items():
            (folder / f"{user}.password").write_text(password + "\n")
        _make_certificates(folder)
        self.mosquitto = find_mosquitto()

    def password_file(self, user: str) -> Path:
        """Where a user's password lies, for ``password_file:``."""
        return self.folder / f"{user}.password"

    def command(self) -> list[str]:
        """What to run; Mosquitto, or amqtt where there is none."""
        if self.mosquitto is None:
            self._write_amqtt()
            return [
                str(Path(sys.executable).with_name("amqtt")),
                "-c",
                str(self.folder / "amqtt.yaml"),
            ]
        self._write_mosquitto()
        return [self.mosquitto, "-c", str(self.folder / "mosquitto.conf")]

    def _write_mosquitto(self) -> None:
        acl = f"user {EDGE_USER}\ntopic readwrite plc/#\ntopic readwrite edge/#\n"
        read_only = "topic read plc/#\ntopic read edge/#\n"
        self._write("tls.acl", f"{acl}user {VIEWER_USER}\n{read_only}")
        self._write("plain.acl", read_only)
        lines = "".join(f"{u}:{_hash(p)}\n" for u, p in self.passwords.items())
        self._write("passwords", lines)
        conf = f"""\
user {getpass.getuser()}
per_listener_settings true
log_dest stderr
max_inflight_messages 2000
max_queued_messages 100000
listener {self.port} 127.0.0.1
certfile {self.folder}/server.pem
keyfile {self.folder}/server.key
tls_version tlsv1.2
allow_anonymous false
password_file {self.folder}/passwords
acl_file {self.folder}/tls.acl
"""
        if self.plain_port:
            conf += f"""\
listener {self.plain_port} 127.0.0.1
allow_anonymous true
acl_file {self.folder}/plain.acl
"""
        self._write("mosquitto.conf", conf)

    def _write_amqtt(self) -> None:
        # Any user may log in: amqtt takes only Argon2 hashes, and it listens on loopback alone.
        self.plain_port = None
        self._write(
            "amqtt.yaml",
            f"""\
listeners:
  default: {{type: tcp, bind: "127.0.0.1:{self.port}", ssl: true,
             certfile: {self.folder}/server.pem, keyfile: {self.folder}/server.key}}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}
""",
        )

    def _write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(text)

    def subscribe_command(self) -> str:
        """What a person types to see the messages with Mosquitto's client."""
        if self.plain_port:
            return "mosquitto_sub -t 'plc/#' -v"
        return (
            f"mosquitto_sub -p {self.port} --cafile {self.ca} -u {VIEWER_USER} -P viewer"
            " -t 'plc/#' -v"
        )


def is_free(port: int) -> bool:
    """Whether nobody listens at a TCP port of 127.0.0.1."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _hash(password: str) -> str:
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _make_certificates(folder: Path) -> None:
    """A CA and a server certificate for localhost, good for a week."""
    now = datetime.now(UTC)

    def issue(
        name: str, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey | None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if issuer is not None:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if signer is not None:
            above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
            builder = builder.add_extension(above, False)
        return builder.sign(signer or key, hashes.SHA256()), key

    ca, ca_key = issue("plc-edge demo CA", None, None)
    server, server_key = issue("localhost", ca.subject, ca_key)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "server.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
