"""An ASGI application served in a thread and event loop of its own, beside a process's run loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.runtime.errors import ConfigError, PlcEdgeError, Problem
from services.runtime.tls import EncryptedKey, load_certificate

# Whoever connects and says nothing is closed: sockets are finite.
HEADER_TIMEOUT_S = 10.0
# From a request's first byte to its body's last. How long it is worked on, a long poll for example,
# is no part of it.
REQUEST_S = 30.0
# For so long a client with a certificate may keep a connection between two requests: boxes report
# once a minute, and a handshake costs more than a report. Whoever has none: uvicorn's 5 s.
KEEP_ALIVE_S = 75
# What asyncio sets aside for each TLS connection, 256 KiB by default and written to at once. A TLS
# record has at most 16 KiB, and a larger buffer is filled by nobody here.
TLS_BUFFER_BYTES = 32 * 1_024
MAX_CONNECTIONS = 256
# Of one peer. Not of this machine: a proxy here speaks for everybody, and must limit them itself.
MAX_PER_PEER = 512
CERTIFICATE_LOOK_S = 60.0


@dataclass
class Limits:
    """Of one server's connections."""

    request_s: float
    per_peer: int
    peers: Counter[str | bytes] = field(default_factory=Counter)
    """How many connections each has now: an address, or the certificate that TLS has verified, so
    that the boxes behind one address do not count as one.
    """


class Protocol(H11Protocol):
    """uvicorn's, that also closes connections on which no request comes, or none that ends, and
    those that one peer has too many of.
    """

    def __init__(self, *args: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._peer: str | bytes | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock; lets a stream abort its connection, and an application know who is at
        the other end: ``peer_certificate`` is the DER that TLS has verified, or None.
        """
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        peer = tls.getpeercert(binary_form=True) if tls else None
        own = {"transport": transport, "peer_certificate": peer}
        self.app_state = {**self.app_state, **own}
        if peer is not None:
            self.timeout_keep_alive = KEEP_ALIVE_S
        self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_silent)
        self._count(peer)

    def _count(self, certificate: bytes | None) -> None:
        address = self.client[0] if self.client else ""
        if certificate is None and is_this_machine(address):
            return
        self._peer = certificate or address
        self._limits.peers[self._peer] += 1
        if self._limits.peers[self._peer] > self._limits.per_peer:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Its place is free."""
        super().connection_lost(exc)
        self._stop_clock()
        if self._peer is not None:
            self._limits.peers[self._peer] -= 1
            if not self._limits.peers[self._peer]:
                del self._limits.peers[self._peer]

    def handle_events(self) -> None:
        """After each part of a request: the clock runs from its first byte to its last."""
        super().handle_events()
        begun = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        if self.conn.their_state is not h11.SEND_BODY and not begun:
            self._stop_clock()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._limits.request_s, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


def is_this_machine(address: str) -> bool:
    """Whether a peer's address is one of loopback, as IPv6 writes it too (``::ffff:127.0.0.1``)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket's
        return True
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


class _Server(uvicorn.Server):
    """uvicorn's, whose loop woke ten times a second to look at the clock and whether to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Until ``end``; once a second it renews the Date header."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)

    def end(self) -> None:
        """From another thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)


class Server:
    """One listening socket and the thread that serves it."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        tls: tuple[str, str] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        clients_ca: str | None = None,
        request_s: float = REQUEST_S,
        max_per_peer: int = MAX_PER_PEER,
    ) -> None:
        """``tls`` is (certificate, key), PEM files; taken up again when they are renewed. With
        ``clients_ca`` (PEM) a client may show a certificate of that authority; one of another gets
        no connection. A request has ``request_s`` to arrive whole; ``max_per_peer`` connections one
        address or certificate (not this machine's).
        """
        asked = clients_ca if tls else None
        config = uvicorn.Config(
            app,
            http=functools.partial(Protocol, limits=Limits(request_s, max_per_peer)),  # type: ignore[arg-type]
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=max_connections,
            timeout_graceful_shutdown=1,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
            ssl_ca_certs=asked,
            ssl_cert_reqs=ssl.CERT_OPTIONAL if asked else ssl.CERT_NONE,
        )
        config.load()
        self._server = _Server(config)
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._serve, args=(listener, tls), name="http", daemon=True
        )
        self._thread.start()

    def _serve(self, listener: socket.socket, tls: tuple[str, str] | None) -> None:
        async def serve() -> None:
            if tls:
                # Its one place: the class takes no such argument, and the process has no other use.
                asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES  # type: ignore[attr-defined]
                renew = asyncio.ensure_future(_renew(self._server.config.ssl, tls))
                renew.add_done_callback(self._renewal_ended)
            await self._server.serve(sockets=[listener])

        try:
            asyncio.run(serve())
        except BaseException as e:  # handed to the main thread, which ends the process
            self._error = e

    def _renewal_ended(self, renewal: asyncio.Future[None]) -> None:
        if not renewal.cancelled() and renewal.exception() is not None:
            self._error = renewal.exception()

    @property
    def failed(self) -> BaseException | None:
        """Why the server has ended by itself; None while it serves."""
        if self._error is None and not self._thread.is_alive():
            return RuntimeError("the HTTP server has ended")
        return self._error

    def stop(self, also: Callable[[], None] = lambda: None) -> None:
        """Ends it within a second or so; ``also`` ends what would keep a connection open."""
        self._server.end()
        also()
        self._thread.join(3.0)


async def _renew(context: Any, files: tuple[str, str]) -> None:
    """Takes up a renewed certificate without a restart."""

    def stamps() -> list[int]:
        return [Path(f).stat().st_mtime_ns for f in files]

    seen = stamps()
    while True:
        await asyncio.sleep(CERTIFICATE_LOOK_S)
        with contextlib.suppress(OSError, ssl.SSLError):  # half written: looked at again
            now = stamps()
            if now != seen:
                load_certificate(context, *files)
                seen = now


def listen(owner: str, host: str, port: int, backlog: int = 128) -> socket.socket:
    """The listening socket, opened in the main thread so that a wrong address is said in plain
    words. ``owner`` is the section of the configuration.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as e:
        raise PlcEdgeError(
            f"{owner} cannot listen on {host}:{port}: {e.strerror or e}; another program may hold"
            f" the port (`ss -ltnp`): stop it, or set another {owner}.port"
        ) from None
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which those
    # of create_server do not, and an answer in two parts then waited 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def certificate(owner: str, tls: dict[str, Any] | None) -> tuple[str, str] | None:
    """(certificate, key) when TLS is configured; raises ConfigError when they do not work."""
    if not tls:
        return None
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls["cert"], tls["key"])
    except EncryptedKey as e:
        raise ConfigError(
            [Problem(tls["key"], f"{owner}.tls.key", e.args[0], hint=e.hint)]
        ) from None
    except (OSError, ssl.SSLError) as e:
        hint = "give a PEM certificate and its unencrypted key, readable by the user of plc-edge"
        raise ConfigError(
            [Problem(tls["cert"], f"{owner}.tls", f"does not work: {e}", hint=hint)]
        ) from None
    return tls["cert"], tls["key"]
