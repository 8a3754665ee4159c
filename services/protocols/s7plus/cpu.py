"""One connection to a CPU by S7CommPlus, through ``s7commplus``: calls that wait, for a thread.

It reads. There is no write in it but the answer to the CPU's question for a password.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import struct
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from s7commplus.client import S7CommPlusClient, _build_explore_request
from s7commplus.codec import parse_or_raise_for_return_value
from s7commplus.connection import (
    FamilyOnlyFingerprintError,
    S7CommPlusConnection,
    SessionKeyCandidateRejectedError,
)
from s7commplus.error import (
    S7CertificateError,
    S7ConnectionError,
    S7Error,
    S7ReturnValueError,
    S7TimeoutError,
    S7TlsHandshakeError,
)
from s7commplus.legitimation import decide_legitimation_mode, extract_session_version_string
from s7commplus.protocol import AccessLevel, FunctionCode, Ids, LegitimationType
from s7commplus.v1_session_key.keys import fingerprints_for_family

from services.protocols.s7plus import words
from services.protocols.s7plus.operating_state import operating_state
from services.protocols.s7plus.plan import SymbolPlan
from services.protocols.s7plus.symbols import SymbolTree
from services.protocols.s7plus.values import Refused, ReplyError, Sent, parse_reply
from services.runtime.errors import PlcUnavailable

T = TypeVar("T")
Stamp = dict[str, tuple[int, int, bytes]]
"""Block -> (its number, the number of its description, when that was changed)."""

# It writes every frame it sends into its log, a password's answer among them, and makes the text of
# it whether anybody reads it or not.
logging.getLogger("s7commplus").setLevel(logging.CRITICAL)
logging.getLogger("s7commplus").propagate = False
# What its parsers raise at bytes that they did not expect, besides their own errors.
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AssertionError, struct.error,
              RecursionError, RuntimeError)  # fmt: skip


class Cpu:
    """An open connection. Every method raises PlcUnavailable once something is wrong: then ``close``
    it, and make a new one.

    ``config``: ``tls`` (auto, required, off), ``ca``, ``fingerprint``, ``username``, ``password`` as
    services/protocols/s7plus/model.py has them, the password in clear;
    ``folder`` of the TLS session's secrets.
    """  # noqa: E501

    def __init__(self, host: str, port: int, config: Mapping[str, Any], timeout_s: float) -> None:
        self.host = host
        self.port = port
        self._config = config
        self._timeout_s = timeout_s
        self.heard: Callable[[], None] = lambda: None
        """Called whenever an answer has come."""
        self._connection = self._open()
        # Its public calls, over a connection with our time-out and a user's name.
        self._client = S7CommPlusClient()
        self._client._connection = self._connection

    # -- connecting ----------------------------------------------------------------------

    def _open(self) -> S7CommPlusConnection:
        tls = self._config.get("tls", "auto")
        if tls == "off":
            return self._connect(use_tls=False)
        try:
            return self._connect(use_tls=True)
        except PlcUnavailable as e:
            has_secret = any(self._config.get(k) for k in ("password", "ca", "fingerprint"))
            if e.code != "tls_failed" or tls == "required" or has_secret:
                raise
        return self._connect(use_tls=False)

    def _connect(self, *, use_tls: bool, key: str | None = None) -> S7CommPlusConnection:
        config = self._config
        connection = S7CommPlusConnection(self.host, self.port)
        password = config.get("password") or ""
        try:
            with self._judged(), _key_log_in(config.get("folder")):
                connection.connect(
                    timeout=self._timeout_s,
                    use_tls=use_tls,
                    tls_ca=config.get("ca") if use_tls else None,
                    tls_cert_fingerprint=config.get("fingerprint") if use_tls else None,
                    password="" if use_tls else password,
                    _session_key_fingerprint=key,
                )
            self._legitimate(connection, use_tls=use_tls, password=password)
        except _FamilyOnly as e:
            if use_tls:  # then the key is not what protects; and none is tried without TLS
                raise PlcUnavailable("key_refused", words.key_refused(self.host)) from None
            return self._try_keys(e.family)
        except BaseException:
            with contextlib.suppress(Exception):
                connection.disconnect()
            raise
        return connection

    def _try_keys(self, family: int) -> S7CommPlusConnection:
        """Old CPUs tell only which kind of key they have: each of that kind, on a connection of its
        own.
        """
        for key in fingerprints_for_family(family):
            try:
                return self._connect(use_tls=False, key=key)
            except PlcUnavailable as e:
                if e.code != "key_refused":
                    raise
        raise PlcUnavailable("key_refused", words.key_refused(self.host))

    def _legitimate(
        self, connection: S7CommPlusConnection, *, use_tls: bool, password: str
    ) -> None:
        level = connection.protection_level
        if not use_tls:
            return  # without TLS the password went with the connection
        user = self._config.get("username") or ""
        page = words.page(has_users=_has_users(_told(connection)))
        if password and level is not None and level > AccessLevel.FULL_ACCESS:
            with self._judged():
                try:
                    connection.authenticate(password, user)
                except S7ConnectionError as e:
                    if not connection.connected or "egitimation" not in str(e):
                        raise
                    message = words.password_refused(self.host, user, page)
                    raise PlcUnavailable("password_refused", message) from None
        level = connection.protection_level
        if level is not None and level >= AccessLevel.NO_ACCESS:
            message = words.no_access(self.host, page, has_password=bool(password))
            raise PlcUnavailable("access_denied", message)

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """The library's errors as ours."""
        where = f"{self.host}:{self.port}"
        try:
            yield
        except (PlcUnavailable, ReplyError):
            raise
        except FamilyOnlyFingerprintError as e:
            raise _FamilyOnly(e.family) from None
        except SessionKeyCandidateRejectedError:
            raise PlcUnavailable("key_refused", words.key_refused(self.host)) from None
        except S7CertificateError as e:
            raise PlcUnavailable("certificate", words.certificate(where, str(e))) from None
        except S7TlsHandshakeError as e:
            if isinstance(e.__cause__, S7TimeoutError | TimeoutError):
                message = f"{where}: no answer within {self._timeout_s:g} s, in the TLS handshake"
                raise PlcUnavailable("timeout", message) from None
            raise PlcUnavailable("tls_failed", words.tls_failed(where, str(e))) from None
        except (S7TimeoutError, TimeoutError):
            message = f"{where}: no answer within {self._timeout_s:g} s"
            raise PlcUnavailable("timeout", message) from None
        except (S7ConnectionError, OSError, ssl.SSLError) as e:
            code, message = words.connection_error(where, e)
            raise PlcUnavailable(code, message) from None
        except S7ReturnValueError as e:
            message = words.read_refused(self.host, f"the CPU refuses ({e})")
            raise PlcUnavailable("access_denied", message) from None
        except (S7Error, *_MALFORMED) as e:
            message = f"{where}: an answer that s7commplus does not understand: {e}"
            raise PlcUnavailable("protocol", message) from None

    def _call(self, work: Callable[[], T]) -> T:
        with self._judged():
            result = work()
        self.heard()
        return result

    # -- what there is -------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """Order number and firmware as the CPU tells them in the handshake (``6ES7 512-1CK01-0AB0
        V2.9``); empty where it does not.
        """
        _, _, rest = _told(self._connection).partition(";")
        return " ".join(rest.replace(";", " ").split())

    @property
    def description(self) -> str:
        """The connection in a few words."""
        version = self._connection.protocol_version
        how = f"S7CommPlus V{version} (experimental), {'TLS' if self.has_tls else 'no TLS'}"
        level = self._connection.protection_level
        if level is not None:
            how += f", {AccessLevel(level).name.lower().replace('_', ' ')}"
        return how

    @property
    def has_tls(self) -> bool:
        """What is read cannot be seen or changed on the way."""
        return bool(self._connection.tls_active)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CPU's certificate, in hex; empty without TLS."""
        seen = self._connection.peer_certificate_fingerprint()
        return seen.hex() if seen else ""

    @property
    def qualifier_version(self) -> int:
        """For ``plan.make_plan``."""
        return int(self._connection.object_qualifier_version)

    def blocks(self) -> dict[str, int]:
        """Data blocks: name -> number in requests."""
        found = self._call(self._client.list_datablocks)
        return {_name(b["name"]): b["rid"] for b in found if b.get("rid")}

    def tree(self, only: Collection[str] | None = None) -> SymbolTree:
        """Names and types of data blocks (all, or ``only`` these) and PLC tags: one request for
        each block, and one that brings all types.
        """
        roots: dict[str, tuple[int, int]] = {}
        for name, rid in self.blocks().items():
            if only is not None and name not in only:
                continue
            if described := self._described_by(rid):
                roots[name] = (rid, described)
        described_types = self._call(self._client._explore_type_info_container)
        return self._call(lambda: SymbolTree.of(roots, described_types))

    def _described_by(self, rid: int) -> int:
        """The number of the description of what a block holds; 0: it lies in load memory only."""
        return self._call(partial(self._client._read_typeinfo_rid, rid))

    # -- reading -------------------------------------------------------------------------

    def read(self, plan: SymbolPlan) -> list[list[Sent | int]]:
        """Each request's items, in order. Raises Refused where the CPU refuses one as a whole."""
        return [self._read(r.payload, len(r.pieces)) for r in plan.requests]

    def _read(self, payload: bytes, count: int) -> list[Sent | int]:
        function = FunctionCode.GET_MULTI_VARIABLES
        reply = self._call(lambda: self._connection.send_request(function, payload))
        try:
            return parse_reply(reply, count)
        except Refused:
            raise
        except ReplyError as e:
            raise PlcUnavailable("protocol", f"{self.host}:{self.port}: {e}") from None

    def state(self) -> str:
        """As ``operating_state`` has it; ``UNKNOWN`` also where the CPU refuses to tell."""

        def ask() -> str:
            what = _build_explore_request(Ids.NATIVE_THE_CPU_EXEC_UNIT_RID, [])
            answer = self._connection.send_request(
                FunctionCode.EXPLORE, what, integrity_tail=5, reassemble=True
            )
            try:
                parse_or_raise_for_return_value(answer, "CPU state read")
            except S7ReturnValueError:
                return "UNKNOWN"
            return operating_state(answer)

        return self._call(ask)

    def stamp(self, blocks: Iterable[str]) -> Stamp:
        """Tells one program of the CPU from the next, as far as these blocks go: whether they are
        there, made of what, changed when. Two requests for each, and one.
        """
        there = self.blocks()
        stamp: dict[str, tuple[int, int, bytes]] = {}
        for name in blocks:
            if (rid := there.get(name)) is not None:
                described = self._described_by(rid)
                changed = self._call(partial(self._client._read_type_info_time, described))
                stamp[name] = (rid, described, changed or b"")
        return stamp

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()


@contextlib.contextmanager
def _key_log_in(folder: str | None) -> Iterator[None]:
    """During a handshake s7commplus writes the TLS session's secrets to a temporary file: here in
    a folder that is in memory and closed to others, where there is one.
    """
    before = tempfile.tempdir
    tempfile.tempdir = folder or before
    try:
        yield
    finally:
        tempfile.tempdir = before


def _told(connection: S7CommPlusConnection) -> str:
    """What the CPU says of itself in the handshake: ``1;6ES7 512-1CK01-0AB0;V2.9``, or nothing."""
    told = connection._server_session_version
    return (extract_session_version_string(told) if told else None) or ""


def _has_users(told: str) -> bool:
    """Firmware that asks for a user, not only for a level's password."""
    return bool(told) and decide_legitimation_mode(told) is LegitimationType.NEW


def _name(text: str) -> str:
    """A block's name: s7commplus takes UTF-8 for Latin-1 here (`PressÃ£o`)."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


class _FamilyOnly(Exception):
    def __init__(self, family: int) -> None:
        self.family = family
        super().__init__()
