"""The target PLC: python-snap7 for the writes, one guarded telegram at a time."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

from snap7.client import Client
from snap7.connection import ISOTCPConnection

from services.mirror.guard import Guard
from services.runtime.errors import PlcUnavailable

# python-snap7 writes at most PDU - 35 bytes in one telegram and splits what is longer by itself;
# nothing longer is ever handed to it, so that each telegram has passed the guard.
WRITE_OVERHEAD_BYTES = 35
# The largest that a CPU grants (S7-1500).
PDU_ASKED_BYTES = 960


class Target:
    """A connection that writes where its guard allows; after PlcUnavailable make another."""

    def __init__(self, config: dict[str, Any], timeout_s: float, guard: Guard) -> None:
        self._guard = guard
        self._host: str = config["host"]
        logging.getLogger("snap7").setLevel(logging.CRITICAL)
        self._client = client = Client()
        tsaps = config["local_tsap"], config["remote_tsap"]
        client.connection = ISOTCPConnection(self._host, config["port"], *tsaps)
        client.pdu_length = PDU_ASKED_BYTES
        # Not Client.connect: python-snap7 3.3 waits 5 s in it and after it, whatever it is told.
        try:
            client.connection.connect(timeout_s)
            client._setup_communication()
        except Exception as e:
            raise self._broken("connect", e) from None
        client.connected = True
        self.pdu_bytes = min(client.pdu_length, PDU_ASKED_BYTES)

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
        """Call it when the descriptor is readable though nothing was asked. Raises PlcUnavailable
        where the PLC has closed the connection (it was restarted: what it shows is unknown) or says
        something (which must never be taken for the next answer).
        """
        connection = self._client.connection
        if connection is None or connection.socket is None or not connection.data_available():
            return
        try:
            stray = connection.socket.recv(1, socket.MSG_PEEK)
        except OSError as e:
            raise self._broken("connection", e) from None
        what = "it says what nobody asked" if stray else "closed by the PLC"
        raise self._broken("connection", ConnectionResetError(what))

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
