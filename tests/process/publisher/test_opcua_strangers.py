"""What somebody without a trusted certificate can cost an ``opcua`` output: nearly nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress

import psutil
import pytest
from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.ua.ua_binary import struct_to_binary

from services.publisher.opcua import guard
from services.publisher.opcua.server import MAX_CONNECTIONS
from services.publisher.opcua.session import Internal
from services.publisher.opcua.users import Users
from tests.kit.common import BUSY_S
from tests.kit.opcua_seen import TEMPERATURE, Rig, fill, go, rig

_TOKEN = 13  # asyncua's first


class Stranger:
    """A connection of bytes, with a channel that secures nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(5)
        url = b"opc.tcp://127.0.0.1:1/"
        body = struct.pack("<5Ii", 0, 65_535, 65_535, 0, 0, len(url)) + url
        self._ask(b"HELF" + struct.pack("<I", 8 + len(body)) + body)
        request = ua.OpenSecureChannelRequest()
        request.Parameters.SecurityMode = ua.MessageSecurityMode.None_
        request.Parameters.ClientNonce = b""
        uri = b"http://opcfoundation.org/UA/SecurityPolicy#None"
        header = struct.pack("<i", len(uri)) + uri + struct.pack("<iiII", -1, -1, 1, 1)
        body = header + struct_to_binary(request)
        answer = self._ask(b"OPNF" + struct.pack("<II", 12 + len(body), 0) + body)
        self._channel = struct.unpack_from("<I", answer, 8)[0]
        self._sequence = 1

    def _ask(self, data: bytes) -> bytes:
        self.socket.sendall(data)
        return self.socket.recv(65_536)

    def send(self, body: bytes, kind: bytes = b"F") -> None:
        """One chunk of a message."""
        self._sequence += 1
        request = self._sequence if kind == b"F" else 2
        head = (24 + len(body), self._channel, _TOKEN, self._sequence, request)
        self.socket.sendall(b"MSG" + kind + struct.pack("<5I", *head) + body)


def _grown_bytes(r: Rig, before_bytes: int, for_s: float) -> int:
    """The most that the server has had more than before."""
    most, end_s = 0, time.monotonic() + for_s
    while time.monotonic() < end_s:
        most = max(most, psutil.Process(r.server.pid).memory_info().rss - before_bytes)
        time.sleep(0.01)
    return most


@pytest.mark.parametrize("how", ["unread", "parts", "small"])
def test_a_stranger_fills_no_memory(how: str) -> None:
    """Answers that are not fetched; parts of a message that does not end; many messages at once,
    with each of which all that came with it was kept. Each took 20 to 190 MB a connection.
    """
    with rig() as r:
        fill(r)
        before_bytes = psutil.Process(r.server.pid).memory_info().rss
        held = [Stranger(r.port) for _ in range(5)]
        question = ua.GetEndpointsRequest()
        question.Parameters.EndpointUrl = f"opc.tcp://{'a' * 60_000}:1/"
        shot = struct_to_binary(question)
        for stranger in held:
            with suppress(ConnectionError):
                if how == "small":
                    stranger.socket.sendall((b"HELF" + struct.pack("<I", 9) + b"x") * 28_000)
                for _ in range(250 if how != "small" else 0):
                    stranger.send(*((shot,) if how == "unread" else (bytes(65_000), b"C")))
        assert _grown_bytes(r, before_bytes, 1.0) < 15e6

        async def work() -> None:
            async with r.client() as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5

        go(work)


def test_strangers_do_not_keep_others_out() -> None:
    """All places are taken by who never signs in."""
    with rig() as r:
        fill(r)
        held = [socket.create_connection(("127.0.0.1", r.port)) for _ in range(MAX_CONNECTIONS)]

        async def work() -> None:
            async with r.client() as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5

        go(work)
        for s in held:
            s.close()


def test_who_reads_nothing_is_ended_all_the_same() -> None:
    """A connection that is only closed stays until its last answer is fetched."""

    async def work() -> None:
        inner = Internal(Users([], False, lambda *_: None))
        inner.max_pending_activation_seconds = 0.5
        clients: list[guard.Connection] = []
        make = lambda: guard.Connection(inner, [], clients, [], TransportLimits())  # noqa: E731
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as s:
            s.setblocking(False)
            while not clients:
                await asyncio.sleep(0.01)
            (connection,) = clients
            assert connection.transport is not None
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.transport.write(bytes(guard.MAX_UNREAD_BYTES))
            end_s = time.monotonic() + BUSY_S
            while clients:
                assert time.monotonic() < end_s, "it stays"
                await asyncio.sleep(0.01)
        server.close()

    asyncio.run(work())
