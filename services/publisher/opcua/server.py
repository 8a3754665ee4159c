"""asyncua's server in a thread of its own: its loop, its endpoints, its start and end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol

from services.opcua.certificates import Own, TrustList
from services.publisher.opcua.guard import Connection, Policy
from services.publisher.opcua.history import Past, capabilities
from services.publisher.opcua.session import MAX_QUEUE, Internal
from services.publisher.opcua.space import Space
from services.publisher.opcua.users import Account, Say, Users
from services.publisher.opcua.values import Reading
from services.runtime import files

# Of a message in either direction; a Publish of 10,000 values has some 400 KB.
MAX_MESSAGE_BYTES = 16 * 2**20
_BUFFER_BYTES = 65_535
MAX_CONNECTIONS = 100
# Notifications kept for a client that does not acknowledge them: asyncua's 5,000 of 10,000 values
# each are some GB.
MAX_UNACKNOWLEDGED = 20
_T = ua.SecurityPolicyType
_ENDPOINTS = {
    ("Basic256Sha256", "sign"): _T.Basic256Sha256_Sign,
    ("Basic256Sha256", "sign_and_encrypt"): _T.Basic256Sha256_SignAndEncrypt,
    ("Aes256_Sha256_RsaPss", "sign"): _T.Aes256Sha256RsaPss_Sign,
    ("Aes256_Sha256_RsaPss", "sign_and_encrypt"): _T.Aes256Sha256RsaPss_SignAndEncrypt,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is."""

    host: str
    port: int
    uri: str
    """The application's."""
    namespace: str
    policies: list[str]
    modes: list[str]
    insecure: bool
    anonymous: bool
    accounts: list[Account]
    own: Own
    trust: TrustList
    history: Path | None
    """The runtime folder, where the historian can be asked; None where there is none."""


class _Binary(BinaryServer):
    insecure = False

    def _make_protocol(self) -> OPCUAProtocol:
        made = Connection(
            self.iserver, self._policies, self.clients, self.closing_tasks, self.limits
        )
        made.insecure = self.insecure
        return made


class _Server(Server):
    def guard(self, trust: TrustList, insecure: bool, say: Say) -> None:
        """Before ``start``."""
        self._trust, self._insecure, self._say = trust, insecure, say

    async def start(self) -> None:
        """As asyncua's, with our connections and policies."""
        await self._setup_server_nodes()
        await self.iserver.start()
        self.bserver = _Binary(self.iserver, *self._get_bind_socket_info(), self.limits)
        self.bserver.insecure = self._insecure
        self.bserver.set_policies([Policy(p, self._trust, self._say) for p in self._policies])
        try:
            await self.bserver.start()
        except OSError:
            await self.iserver.stop()
            raise


class _Log(logging.Handler):
    """What asyncua finds wrong with itself, as a line of our log."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.ERROR)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            # Its words may quote what a client sent.
            kind = record.exc_info[0].__name__ if record.exc_info[0] else ""
            self._say("error", "asyncua", f"{record.name}:{record.lineno}: {kind}")


class Running:
    """A server that serves, or tries to. Made and told from the process's own thread."""

    def __init__(
        self, settings: Settings, say: Say, ended: Callable[[BaseException | None], None]
    ) -> None:
        """``say`` and ``ended`` are called in the server's thread."""
        self._settings = settings
        self._say = say
        self._ended = ended
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._fault: Exception | None = None
        self.sessions = 0
        self.items = 0
        """Signed in, and watched by them; counted once a second."""
        self.space: Space | None = None
        self._thread = threading.Thread(target=self._run, name="opcua", daemon=True)

    def start(self) -> None:
        """``said("info", "listening", …)`` follows, or ``ended``."""
        self._thread.start()

    def do(self, work: Callable[[Space], Awaitable[None]]) -> None:
        """Runs ``work`` in the server's thread; a fault of it ends the server."""
        asyncio.run_coroutine_threadsafe(self._work(work), self._loop)

    async def _work(self, work: Callable[[Space], Awaitable[None]]) -> None:
        if self.space is None:
            return
        try:
            await work(self.space)
        except Exception as e:
            self._fault = e
            self._stop.set()

    def close(self, wait_s: float) -> None:
        """Says goodbye to the clients."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(wait_s)

    def _run(self) -> None:
        logger = logging.getLogger("asyncua")
        logger.propagate = False
        logger.handlers = [_Log(self._say)]
        asyncio.set_event_loop(self._loop)
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as e:
            error = e
        self._ended(error)

    async def _serve(self) -> None:
        s = self._settings
        inner = Internal(Users(s.accounts, s.anonymous, self._say))
        server = _Server(inner)
        await server.init()
        inner.max_connections = MAX_CONNECTIONS
        inner.max_monitored_item_queue_size = MAX_QUEUE
        inner.max_unacked_messages_per_subscription = MAX_UNACKNOWLEDGED
        inner.allow_remote_admin = False
        await server.set_application_uri(s.uri)
        server.product_uri, server.name = "urn:plc-edge", "plc-edge"
        server.application_type = ua.ApplicationType.Server
        server.set_endpoint(f"opc.tcp://{_bracketed(s.host)}:{s.port}/")
        server.socket_address = (s.host, s.port)
        server.limits = TransportLimits(
            _BUFFER_BYTES,
            _BUFFER_BYTES,
            max_chunk_count=MAX_MESSAGE_BYTES // _BUFFER_BYTES,
            max_message_size=MAX_MESSAGE_BYTES,
        )
        for load, file in (
            (server.load_certificate, s.own.cert),
            (server.load_private_key, s.own.key),
        ):
            data = files.read(file, files.PEM_MAX_BYTES)
            # asyncua would go by the file's name.
            await load(data, format="PEM" if b"-----BEGIN" in data else "DER")
        endpoints = [_ENDPOINTS[policy, mode] for policy in s.policies for mode in s.modes]
        if s.insecure:
            endpoints.append(_T.NoSecurity)
        server.set_security_policy(endpoints)
        server.set_identity_tokens(list(_tokens(s)))
        inner.namespace = await server.register_namespace(s.namespace)
        self.space = Space(inner.aspace, inner.namespace, s.history is not None)
        if s.history is not None:
            inner.past = Past(s.history)
            for node, value in capabilities():
                inner.aspace[ua.NodeId(node)].attributes[ua.AttributeIds.Value].value = Reading(
                    value
                )
        server.guard(s.trust, s.insecure, self._say)
        await server.start()
        self._say("info", "listening", "")
        try:
            while not self._stop.is_set():
                self.sessions, self.items = inner.sessions, inner.items
                try:
                    await asyncio.wait_for(self._stop.wait(), 1.0)
                except TimeoutError:
                    continue
            if self._fault is not None:
                raise self._fault
        finally:
            await server.stop()


def _tokens(settings: Settings) -> Iterable[type]:
    if settings.anonymous or any(a.certificate for a in settings.accounts):
        # A user may be known by the certificate of his application, and then says nothing more.
        yield ua.AnonymousIdentityToken
    if any(a.certificate for a in settings.accounts):
        yield ua.X509IdentityToken
    if any(a.password is not None for a in settings.accounts):
        yield ua.UserNameIdentityToken


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
