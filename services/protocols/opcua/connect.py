"""One connection to an OPC UA server, made as the configuration says, or a refusal in words."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto import security_policies, uacrypto

from services.protocols.opcua import security
from services.runtime import secrets
from services.runtime.errors import ConfigError, PlcUnavailable

POLICIES = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
MODES = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_NO_POLICY = "http://opcfoundation.org/UA/SecurityPolicy#None"
# The server ends a session that it has not heard of for so long, and with it its subscriptions:
# asked every second, so only one whose line is cut for longer ends.
SESSION_MS = 30_000
# Longer than any health check of ours: asyncua's own would only repeat it.
_NEVER_S = 86_400.0

E = ua.uaerrors
_USER = (E.BadIdentityTokenRejected, E.BadIdentityTokenInvalid, E.BadUserAccessDenied)
_CERTIFICATE = (
    E.BadSecurityChecksFailed, E.BadCertificateUntrusted, E.BadCertificateInvalid,
    E.BadCertificateTimeInvalid, E.BadCertificateUriInvalid, E.BadCertificateUseNotAllowed,
    E.BadCertificateChainIncomplete, E.BadCertificateIssuerRevocationUnknown,
)  # fmt: skip
_FULL = (E.BadTooManySessions, E.BadTcpNotEnoughResources, E.BadTcpServerTooBusy)


def url_of(plc: Mapping[str, Any], host: str) -> str:
    """The server's address at one of the PLC's hosts."""
    name = f"[{host}]" if ":" in host else host
    return f"opc.tcp://{name}:{plc['port']}{plc['path']}"


async def endpoints(plc: Mapping[str, Any], host: str) -> list[ua.EndpointDescription]:
    """What the server offers. Raises PlcUnavailable."""
    client = Client(url_of(plc, host), timeout=plc["timeout_s"])
    try:
        found: list[ua.EndpointDescription] = await client.connect_and_get_server_endpoints()
    except Exception as e:
        raise refusal(e, plc) from e
    return found


def choose(offered: list[ua.EndpointDescription], plc: Mapping[str, Any]) -> ua.EndpointDescription:
    """The endpoint with the policy and mode that are configured. Raises PlcUnavailable naming what
    there is."""
    policy, mode = plc["policy"], plc["mode"]
    uri = POLICIES[policy].URI if policy != "none" else _NO_POLICY
    wanted = MODES[mode] if policy != "none" else ua.MessageSecurityMode.None_
    for endpoint in offered:
        if (endpoint.SecurityPolicyUri, endpoint.SecurityMode) == (uri, wanted):
            return endpoint
    there = sorted({f"{_policy(e)} {_mode(e)}".strip() for e in offered})
    asked = policy if policy == "none" else f"{policy} {mode}"
    raise PlcUnavailable(
        "opcua_no_endpoint",
        f"the server does not offer {asked}; it offers {', '.join(there) or 'nothing'}: set"
        " `security:` to one of these, or switch it on in TIA Portal (OPC UA > Server > Security)",
    )


def _policy(endpoint: ua.EndpointDescription) -> str:
    return str(endpoint.SecurityPolicyUri or "").rpartition("#")[2].replace("None", "none")


def _mode(endpoint: ua.EndpointDescription) -> str:
    return next((name for name, mode in MODES.items() if mode == endpoint.SecurityMode), "")


def leaf(chain: bytes | None) -> bytes:
    """The server's own certificate (DER); servers may hang their CA's behind it."""
    if not chain or len(chain) < 4:
        return b""
    return chain[: int.from_bytes(chain[2:4]) + 4]


class _Client(Client):  # type: ignore[misc]  # asyncua is not typed
    """One that sends no password that anybody on the wire can read, whatever the server asks."""

    def server_policy(self, token_type: ua.UserTokenType) -> ua.UserTokenPolicy:
        """How a user's token is protected."""
        found = super().server_policy(token_type)
        is_clear = found.SecurityPolicyUri == _NO_POLICY
        is_sealed = self.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        if token_type == ua.UserTokenType.UserName and is_clear and not is_sealed:
            raise PlcUnavailable(
                "opcua_password_in_clear",
                "the server wants the password readable, and `mode: sign` encrypts nothing: set"
                " `security: {mode: sign_and_encrypt}`",
            )
        return found


async def connect(config: Mapping[str, Any], host: str) -> Client:
    """A client whose session is active. ``config``: a reader's, as rendered.

    Raises PlcUnavailable (not trusted, no such endpoint, user refused, …).
    """
    plc = config["plc"]
    endpoint = choose(await endpoints(plc, host), plc)
    client = _Client(url_of(plc, host), timeout=plc["timeout_s"], watchdog_intervall=_NEVER_S)
    client.name = client.description = f"plc-edge {config['site']}"
    client.application_uri = security.application_uri(config["site"])
    client.product_uri = "urn:plc-edge"
    client.session_timeout = SESSION_MS
    state = Path(config["state"])
    try:
        if plc["policy"] != "none":
            shown = leaf(endpoint.ServerCertificate)
            security.check_trusted(state, plc["id"], shown)
            with _own_file(security.own_file(state)):
                certificate, key = security.own(state, config["site"])
            client.application_uri = security.uri_of(certificate)
            await client.set_security(
                POLICIES[plc["policy"]],
                uacrypto.CertProperties(certificate, "der"),
                uacrypto.CertProperties(key, "der"),
                server_certificate=uacrypto.CertProperties(shown, "der"),
                mode=MODES[plc["mode"]],
            )
        if plc["user_certificate"]:
            with _own_file(plc["user_certificate"]):
                await client.load_client_certificate(plc["user_certificate"])
            with _own_file(plc["user_key"]):
                await client.load_private_key(plc["user_key"])
        elif plc["username"]:
            client.set_user(plc["username"])
            client.set_password(secrets.resolve(plc["password"]) if plc["password"] else "")
        await client.connect()
    except PlcUnavailable:
        raise
    except ConfigError as e:
        raise PlcUnavailable("opcua_own_file", str(e)) from None
    except Exception as e:
        raise refusal(e, plc) from e
    return client


@contextlib.contextmanager
def _own_file(path: object) -> Iterator[None]:
    """A file of this box that cannot be read is no fault of the server's."""
    try:
        yield
    except (OSError, ValueError, TypeError) as e:  # TypeError: a key with a password
        why = e.strerror if isinstance(e, OSError) else "no certificate or key that can be read"
        raise PlcUnavailable("opcua_own_file", f"{path}: {why}") from None


def refusal(error: Exception, plc: Mapping[str, Any]) -> PlcUnavailable:
    """What went wrong, in words for who can mend it."""
    if isinstance(error, PlcUnavailable):
        return error
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return PlcUnavailable("timeout", f"no answer within {plc['timeout_s']:g} s")
    if isinstance(error, _USER):
        who = f"user {plc['username']!r}" if plc["username"] else "a session without a user"
        who = "the user's certificate" if plc["user_certificate"] else who
        return PlcUnavailable(
            "opcua_user_refused",
            f"the server refuses {who} ({error.__class__.__name__}): set `username:` and"
            " `password_file:`, or allow it in TIA Portal (OPC UA > Server > Security > Users)",
        )
    # Some servers answer the opening of a channel with a fault that asyncua 2.1.0 cannot read.
    if isinstance(error, (*_CERTIFICATE, AssertionError)):
        why = "a fault" if isinstance(error, AssertionError) else error.__class__.__name__
        return PlcUnavailable(
            "opcua_refuses_us",
            f"the server does not trust this box ({why}): import the"
            " certificate that `plc-edge trust --own FILE` writes into its trusted clients",
        )
    if isinstance(error, _FULL):
        return PlcUnavailable("opcua_full", "the server has no session free: close another client")
    if isinstance(error, ua.UaStatusCodeError):
        return PlcUnavailable("opcua_refused", f"the server answers {error.__class__.__name__}")
    if isinstance(error, OSError):
        if isinstance(error, ConnectionRefusedError):
            text = f"port {plc['port']} refuses the connection: does the OPC UA server run there?"
            return PlcUnavailable("refused", text)
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return PlcUnavailable("unreachable", f"cannot be reached: {why}")
    return PlcUnavailable("opcua_fault", f"no OPC UA as expected: {error.__class__.__name__}")


async def namespaces(client: Client) -> dict[str, int]:
    """URI -> its number on this server, today."""
    return {uri: n for n, uri in enumerate(await client.get_namespace_array())}
