"""Rendered configurations of an ``opcua`` output, its clients' certificates, and its clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.opcua import certificates
from services.runtime.clock import now_ms
from tests.kit.publisher_rig import _config

SITE = "planta-sp"
NAMESPACE = f"urn:plc-edge:{SITE}:values"
CLIENT_URI = "urn:scada:client"


def fields(count: int, type: str = "REAL") -> list[dict[str, Any]]:
    """v0000, v0001 …"""
    return [{"name": f"v{i:04d}", "type": type} for i in range(count)]


def plc(
    name: str = "prensa-01",
    locatario: str = "acme",
    groups: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """As ``apply`` renders it for this output."""
    group = {
        "name": "db500",
        "machines": [None],
        "timezone": "America/Sao_Paulo",
        "fields": [
            {"name": "temperatura", "type": "REAL", "unit": "°C", "description": "do molde"},
            {"name": "rodando", "type": "BOOL"},
            {"name": "ciclos", "type": "DINT"},
        ],
    }
    return {
        "id": name,
        "locatario": locatario,
        "host": "192.168.0.10",
        "heartbeat_s": 10.0,
        "groups": [group] if groups is None else groups,
    }


def opcua_config(
    run: Path, port: int, plcs: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """An output named ``scada``."""
    alarms = options.pop("alarms", [])
    output = {
        "name": "scada",
        "type": "opcua",
        "locatarios": None,
        "host": "127.0.0.1",
        "port": port,
        "policies": ["Basic256Sha256", "Aes256_Sha256_RsaPss"],
        "modes": ["sign", "sign_and_encrypt"],
        "insecure": False,
        "anonymous": False,
        "users": [],
        "trusted": None,
        "certificate": None,
        "key": None,
        **options,
    }
    config = _config(run, output, [plc()] if plcs is None else plcs)
    return {**config, "alarms": alarms}


def user(
    run: Path, name: str, password: str, locatarios: list[str] | None = None
) -> dict[str, Any]:
    """An entry of ``users``, its password in a file."""
    file = run / f"{name}.pw"
    file.write_text(password)
    reference = {"file": str(file)}
    return {
        "username": name, "password": reference, "certificate": None, "locatarios": locatarios,
    }  # fmt: skip


def client_certificate(folder: Path, uri: str = CLIENT_URI) -> certificates.Own:
    """A client's own, made on the spot."""
    return certificates.own(folder, uri, ["localhost"])


def ended_certificate(folder: Path) -> certificates.Own:
    """The same, of which the time is over since yesterday."""
    own = client_certificate(folder)
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    name, now = x509.Name([]), datetime.now(UTC)
    ended = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    own.cert.write_bytes(certificates.der(ended))
    return own


def trust(run: Path, client: certificates.Own, output: str = "scada") -> None:
    """Puts it on the list."""
    folder = run / "opcua_server" / output / "trusted"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{client.cert.parent.name}.der").write_bytes(client.cert.read_bytes())


def body(
    seq: int,
    values: dict[str, Any],
    *,
    plc: str = "prensa-01",
    locatario: str = "acme",
    group: str = "db500",
    machine: str | None = None,
    quality: str = "good",
    bad: dict[str, str] | None = None,
    epoch: int = 1_764_000_000_000,
    ts: int | None = None,
) -> bytes:
    """A message as a reader makes it."""
    message: dict[str, Any] = {
        "v": 1, "site": SITE, "locatario_id": locatario, "plc_id": plc, "ip": "192.168.0.10",
        "db": 500, "group": group, "measurement": "s7_db1",
        "ts": now_ms() if ts is None else ts, "epoch": epoch, "seq": seq, "quality": quality,
        "latency_ms": 2.41, "values": values,
    }  # fmt: skip
    if machine is not None:
        message["machine"] = machine
    if bad:
        message["bad"] = bad
    return orjson.dumps(message)
