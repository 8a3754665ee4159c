"""An ASGI application served in a thread and event loop of its own, beside a process's run loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.runtime.errors import ConfigError, PlcEdgeError, Problem
from services.runtime.tls import EncryptedKey, load_certificate

# Whoever connects and says nothing is closed: sockets are finite.
HEADER_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 256
CERTIFICATE_LOOK_S = 60.0


class Protocol(H11Protocol):
    """uvicorn's, that also closes connections on which no request comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock; lets a stream abort its connection, and an application know who is at
        the other end: ``peer_certificate`` is the DER that TLS has verified, or None.
        """
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        peer = tls.getpeercert(binary_form=True) if tls else None
        own = {"transport": transport, "peer_certificate": peer}
        self.app_state = {**self.app_state, **own}
        self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


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
    ) -> None:
        """``tls`` is (certificate, key), PEM files; taken up again when they are renewed. With
        ``clients_ca`` (PEM) a client may show a certificate of that authority; one of another gets
        no connection.
        """
        asked = clients_ca if tls else None
        config = uvicorn.Config(
            app,
            http=Protocol,
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
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as e:
        raise PlcEdgeError(
            f"{owner} cannot listen on {host}:{port}: {e.strerror or e}; another program may hold"
            f" the port (`ss -ltnp`): stop it, or set another {owner}.port"
        ) from None


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
