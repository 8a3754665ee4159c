"""The secrets and certificates that a configuration names: are they there, and of use?"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from services.protocols.opcua.model import OpcuaPlc
from services.protocols.s7plus.model import S7PlusPlc
from services.runtime import files, secrets
from services.runtime.alert_routes import AlertMqtt
from services.runtime.config import (
    BrokerOutput,
    Credentials,
    HttpOutput,
    HttpTls,
    OpcuaOutput,
    Tls,
)
from services.runtime.document import KeyPath
from services.runtime.errors import ConfigError, Problem
from services.runtime.fleet_model import Fleet
from services.runtime.judged import Unknown
from services.runtime.site import Site
from services.runtime.tls import EncryptedKey, refuse_encrypted

_COPY = "copy the file there, readable by the user that runs plc-edge"
SECRET_KEYS = ("password", "token", "secret")


def broken(site: Site) -> Iterator[Problem]:
    """Every secret that cannot be read, every certificate that is of no use."""
    for at, holder in _credentials(site):
        with suppress(Unknown):
            yield from _secrets(site, at, holder)
    for at, tls in _certificates(site):
        yield from _pem_files(site, at, tls)
    for at, file in _opcua_files(site):
        path = site.config.file.parent / file
        try:
            data = files.read(path, files.PEM_MAX_BYTES)
        except files.Unreadable as e:
            yield site.problem(at, f"{path} cannot be read: it {e}", _COPY)
            continue
        if at[-1] == "certificate" and not _is_certificate(data):
            yield site.problem(at, f"{path} is no certificate", "give one, DER or PEM")
    for at, cert, key in _opcua_pairs(site):
        if why := _no_pair(site.config.file.parent / cert, site.config.file.parent / key):
            yield site.problem(at, *why)
    with suppress(Unknown):
        for i, plc in enumerate(site.config.plcs):
            if isinstance(plc, OpcuaPlc):
                with suppress(Unknown):
                    yield from _user_files(site, ("plcs", i), plc)
    with suppress(Unknown):
        # The claim's file may go once it has been used.
        if site.config.fleet is not None:
            yield from _pem_files(site, ("fleet",), site.config.fleet)


def _is_certificate(data: bytes) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        pem = b"-----BEGIN" in data
        context.load_verify_locations(cadata=data.decode("ascii") if pem else data)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _no_pair(cert: Path, key: Path) -> tuple[str, str] | None:
    """What is wrong with a private key beside a certificate that can be read, and the mend."""
    if not (cert.is_file() and key.is_file() and _is_certificate(cert.read_bytes())):
        return None  # said elsewhere
    # 10 MB that only who names such files pays.
    from cryptography.hazmat.primitives import serialization

    from services.opcua import certificates

    data = files.read(key, files.PEM_MAX_BYTES)
    is_pem = b"-----BEGIN" in data
    load = serialization.load_pem_private_key if is_pem else serialization.load_der_private_key
    try:
        public = load(data, None).public_key()
    except TypeError:
        error = EncryptedKey(key)
        return error.args[0], error.hint
    except ValueError:
        return f"{key} is no private key", "give the certificate's own, DER or PEM"
    if public != certificates.load(cert).public_key():
        return f"{key} is not the key of {cert}", "give the two that were made together"
    return None


def _user_files(site: Site, at: KeyPath, plc: OpcuaPlc) -> Iterator[Problem]:
    for name in ("user_certificate", "user_key"):
        file: Path | None = getattr(plc, name)
        if file is None:
            continue
        path = site.config.file.parent / file
        try:
            files.read(path, files.PEM_MAX_BYTES)
        except files.Unreadable as e:
            hint = "copy the file there, readable by the user that runs plc-edge"
            yield site.problem((*at, name), f"{path} cannot be read: it {e}", hint)


def unwise(site: Site) -> Iterator[Problem]:
    """Passwords in clear, and accounts that several connections share. The site is whole."""
    for at, holder in _credentials(site):
        for name in SECRET_KEYS:
            given = getattr(holder, name, None) is not None
            if given and secrets.reference_of(holder, name, Path()) is None:
                yield site.problem((*at, name), "is in clear", f"`{name}_file:` or ${{VARIABLE}}")

    yield from _shared_accounts(site)


def _shared_accounts(site: Site) -> Iterator[Problem]:
    """One connection per tenant: a broker that takes the user name for the client id would let
    connections of one account evict each other.
    """
    config = site.config
    for i, output in enumerate(config.outputs):
        if not isinstance(output, BrokerOutput) or output.username is None:
            continue
        tenants = [t for t in config.tenants() if t in (output.locatarios or config.tenants())]
        without = [t for t in tenants if t not in output.accounts]
        if len(without) > 1:
            message = f"output {output.name!r} serves {', '.join(without)} with one account"
            hint = "give each tenant its own under `accounts:`"
            yield site.problem(("outputs", i, "username"), message, hint)


def _credentials(site: Site) -> Iterator[tuple[KeyPath, Credentials]]:
    config = site.config
    with suppress(Unknown):
        yield ("metrics",), config.metrics
    with suppress(Unknown):
        for i, plc in enumerate(config.plcs):
            if isinstance(plc, Credentials):
                yield ("plcs", i), plc
    with suppress(Unknown):
        for i, output in enumerate(config.outputs):
            yield ("outputs", i), output
            if isinstance(output, BrokerOutput):
                with suppress(Unknown):
                    for tenant, account in output.accounts.items():
                        yield ("outputs", i, "accounts", tenant), account
            if isinstance(output, OpcuaOutput):
                with suppress(Unknown):
                    for u, user in enumerate(output.users):
                        yield ("outputs", i, "users", u), user
    with suppress(Unknown):
        for i, receiver in enumerate(config.alerts.receivers):
            yield ("alerts", "receivers", i), receiver
            if isinstance(receiver, AlertMqtt):
                with suppress(Unknown):
                    for tenant, account in receiver.accounts.items():
                        yield ("alerts", "receivers", i, "accounts", tenant), account


def _certificates(site: Site) -> Iterator[tuple[KeyPath, Tls | HttpTls | S7PlusPlc]]:
    config = site.config
    with suppress(Unknown):
        for i, plc in enumerate(config.plcs):
            if isinstance(plc, S7PlusPlc):
                yield ("plcs", i), plc
    with suppress(Unknown):
        if config.metrics.tls:
            yield ("metrics", "tls"), config.metrics.tls
    with suppress(Unknown):
        for i, output in enumerate(config.outputs):
            with suppress(Unknown):
                if isinstance(output, BrokerOutput | HttpOutput) and output.tls:
                    yield ("outputs", i, "tls"), output.tls


def _opcua_files(site: Site) -> Iterator[tuple[KeyPath, Path]]:
    """Certificates and keys of OPC UA servers and their users: DER or PEM."""
    with suppress(Unknown):
        for i, output in enumerate(site.config.outputs):
            if not isinstance(output, OpcuaOutput):
                continue
            for name in ("certificate", "key"):
                with suppress(Unknown):
                    if (file := getattr(output, name)) is not None:
                        yield ("outputs", i, name), file
            with suppress(Unknown):
                for u, user in enumerate(output.users):
                    with suppress(Unknown):
                        if user.certificate is not None:
                            yield ("outputs", i, "users", u, "certificate"), user.certificate


def _opcua_pairs(site: Site) -> Iterator[tuple[KeyPath, Path, Path]]:
    """Where a private key stands, its certificate, and the key: of OPC UA."""
    with suppress(Unknown):
        for i, output in enumerate(site.config.outputs):
            with suppress(Unknown):
                if isinstance(output, OpcuaOutput) and output.certificate and output.key:
                    yield ("outputs", i, "key"), output.certificate, output.key
    with suppress(Unknown):
        for i, plc in enumerate(site.config.plcs):
            with suppress(Unknown):
                if isinstance(plc, OpcuaPlc) and plc.user_certificate and plc.user_key:
                    yield ("plcs", i, "user_key"), plc.user_certificate, plc.user_key


def _secrets(site: Site, at: KeyPath, holder: Credentials) -> Iterator[Problem]:
    for name in SECRET_KEYS:
        reference = secrets.reference_of(holder, name, site.config.file.parent)
        if reference is None:
            continue
        try:
            secrets.resolve(reference)
        except ConfigError as e:
            key = f"{name}_file" if "file" in reference else name
            for p in e.problems:
                where = p.file if p.file != "environment" else p.key
                yield site.problem((*at, key), f"{where}: {p.message}", p.hint)


def _pem_files(
    site: Site, at: KeyPath, tls: Tls | HttpTls | Fleet | S7PlusPlc
) -> Iterator[Problem]:
    good: dict[str, Path] = {}
    for name in ("ca", "cert", "key"):
        file: Path | None = getattr(tls, name, None)
        if file is None:
            continue
        path = site.config.file.parent / file
        try:
            files.read(path, files.PEM_MAX_BYTES)
            good[name] = path
        except files.Unreadable as e:
            yield site.problem((*at, name), f"{path} cannot be read: it {e}", _COPY)
    if "key" in good and "cert" in good:
        try:
            refuse_encrypted(good["cert"], good["key"])
        except EncryptedKey as e:
            yield site.problem((*at, "key"), e.args[0], e.hint)
