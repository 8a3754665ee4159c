"""What keeps a CPU from being read by S7CommPlus, in words, with the page of TIA Portal to open.

Pages as in the help of TIA Portal V17 to V20. Nothing here needs ``s7commplus``.
"""

from __future__ import annotations

import errno

_SECURITY = "TIA Portal: the CPU's Properties > Protection & Security"
MECHANISMS = f"{_SECURITY} > Connection mechanisms"
ACCESS_LEVEL = f"{_SECURITY} > Access level"
USERS = "TIA Portal: the project tree's Security settings > Users and roles"
DOWNLOAD = "compile and download the hardware"


def page(*, has_users: bool) -> str:
    """Where it is set who may read: from firmware V3.1 (S7-1200: V4.7) on projects have users."""
    return USERS if has_users else ACCESS_LEVEL


def no_access(host: str, page: str, *, has_password: bool) -> str:
    """The access level is "No access"."""
    if has_password:
        mend = f"what was given permits no more than that. {page}: give it HMI access at least"
        mend += f", and {DOWNLOAD}"
    else:
        mend = "give `password:`, and `username:` where the project has users. Which there are:"
        mend += f" {page}"
    return f'{host}: the CPU\'s access level is "No access (complete protection)": {mend}'


def password_refused(host: str, user: str, page: str) -> str:
    """The legitimation failed."""
    who = f"user {user!r} or the password" if user else "the password"
    mend = f"{page}: set it anew, and {DOWNLOAD}"
    if page == USERS and not user:
        mend += "; a user's password needs `username:` beside it"
    return f"{host}: the CPU refuses {who}. {mend}"


def key_refused(host: str) -> str:
    """The handshake of firmware without TLS failed."""
    return (
        f"{host}: the CPU refuses all keys that s7commplus knows for its kind: with firmware V2.9"
        f" (S7-1200: V4.5) or newer use secure communication. {MECHANISMS}: tick 'Only allow secure"
        f" PG/PC and HMI communication', and {DOWNLOAD}"
    )


def certificate(where: str, said: str) -> str:
    """The CPU's certificate is another than it should be."""
    return (
        f"{where}: the CPU's certificate is not the one that is trusted: {said}. {MECHANISMS} > PLC"
        " communication certificate shows it; give its SHA-256 (`fingerprint:`) or CA (`ca:`)"
    )


def tls_failed(where: str, said: str) -> str:
    """No TLS could be agreed on."""
    return (
        f"{where}: no TLS with this CPU ({said}): it needs firmware V2.9 (S7-1200: V4.5) and a"
        f" certificate. {MECHANISMS} > PLC communication certificate; then {DOWNLOAD}. Older"
        " firmware: `tls: off`"
    )


def connection_error(where: str, error: Exception) -> tuple[str, str]:
    """(code, text) of a connection that is refused or gone."""
    # s7commplus wraps what the system said.
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno):
        cause = cause.__cause__ or cause.__context__
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.ECONNREFUSED:
        return "refused", f"{where}: nobody listens there"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable", f"{where}: no way to it: check the address and the network"
    if number in (errno.ECONNRESET, errno.EPIPE) or "closed" in str(error).lower():
        return "reset", f"{where}: the PLC closed the connection ({error})"
    return "refused_by_cpu", (
        f"{where}: the CPU gives no S7CommPlus session: {error}. {MECHANISMS}: a CPU that permits"
        " only secure communication needs `tls: auto` (the default) or `required`"
    )


NOT_ENCRYPTED = (
    "the connection is not encrypted, and nobody has proved who answers: values could be read and"
    " changed on the way"
)
ENCRYPT = f"{MECHANISMS}: secure PG/PC and HMI communication (firmware V2.9, S7-1200 V4.5)"


def not_pinned(fingerprint: str) -> str:
    """The CPU's certificate is any."""
    return (
        "anybody may be at the other end, for any certificate is taken: compare this one with the"
        f" CPU's ({MECHANISMS} > PLC communication certificate), and give it as `fingerprint:`:"
        f" {fingerprint}"
    )


# Reasons in ``bad`` that may mean that the program was changed.
OF_THE_PROGRAM = frozenset(("unknown_symbol", "type_differs"))


def read_refused(host: str, said: str) -> str:
    """A request was refused as a whole."""
    return (
        f"{host}: {said}: reading needs HMI access at least. Give `password:`, or {ACCESS_LEVEL}"
        f" (firmware V3.1, S7-1200 V4.7 and newer: {USERS}); then {DOWNLOAD}"
    )
