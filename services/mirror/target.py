"""The target PLC: python-snap7 for the writes, one guarded telegram at a time."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

from snap7.client import Client

from services.mirror.guard import Guard
from services.runtime.errors import PlcUnavailable

# python-snap7 writes at most PDU - 35 bytes in one telegram and splits what is longer by itself;
# nothing longer is ever handed to it, so that each telegram has passed the guard.
WRITE_OVERHEAD_BYTES = 35


class Target:
    """A connection that writes where its guard allows; after PlcUnavailable make another."""

    def __init__(self, config: dict[str, Any], timeout_s: float, guard: Guard) -> None:
        self._guard = guard
        self._host: str = config["host"]
        remote = config["remote_tsap"]
        logging.getLogger("snap7").setLevel(logging.CRITICAL)
        self._client = Client()
        self._client.local_tsap = config["local_tsap"]
        self._client.connection_type = remote >> 8
        try:
            self._client.connect(self._host, remote >> 5 & 7, remote & 31, config["port"])
        except Exception as e:
            raise self._broken("connect", e) from None
        if self._client.connection is not None:
            self._client.connection.timeout = timeout_s
        self.pdu_bytes: int = self._client.pdu_length

    @property
    def write_limit_bytes(self) -> int:
        """The most that one write telegram takes."""
        return self.pdu_bytes - WRITE_OVERHEAD_BYTES

    def write(self, start: int, data: bytes) -> None:
        """One telegram. Raises WriteRefused before anything is sent."""
        self._guard.check(self._guard.db, start, len(data))
        if len(data) > self.write_limit_bytes:
            raise ValueError(f"{len(data)} bytes exceed one telegram")
        try:
            self._client.db_write(self._guard.db, start, bytearray(data))
        except Exception as e:
            raise self._broken(f"write DB{self._guard.db} byte {start}", e) from None

    def fileno(self) -> int:
        """The connection's descriptor, to notice its end while nothing is written."""
        connection = self._client.connection
        return -1 if connection is None or connection.socket is None else connection.socket.fileno()

    def check(self) -> None:
        """Call it when the descriptor is readable though nothing was asked: raises PlcUnavailable
        where the PLC has closed the connection (it was restarted: what it shows is unknown).
        """
        connection = self._client.connection
        line = connection.socket if connection is not None else None
        try:
            gone = line is None or not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as e:
            raise self._broken("connection", e) from None
        if gone:
            raise self._broken("connection", ConnectionResetError("closed by the PLC"))

    def read(self, start: int, length: int) -> bytes:
        """Reads back."""
        try:
            return bytes(self._client.db_read(self._guard.db, start, length))
        except Exception as e:
            raise self._broken(f"read DB{self._guard.db} byte {start}", e) from None

    def _broken(self, what: str, error: Exception) -> PlcUnavailable:
        self.close()
        text = str(error)
        code = "target_refused" if "0x" in text or "not exist" in text else "target_away"
        return PlcUnavailable(code, f"{self._host}: {what}: {text}")

    def close(self) -> None:
        """Drops the connection."""
        with contextlib.suppress(Exception):  # it is gone either way
            self._client.disconnect()
