"""How a connection to a PLC is made: TCP, COTP with both TSAPs, S7 setup. And why one is not, in
words for the person at the machine.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass

from services.runtime.errors import PlcUnavailable
from services.s7 import telegram as t

_TPKT_BYTES = 4
_RECEIVE_BYTES = 4_096
_PDU_MIN_BYTES = 112
_SILENT = "is this the PLC's address and port? If it is, its CPU or network module hangs"

# What to free, wherever a connection is refused for want of room.
FULL = (
    "all S7 connections of the CPU are taken: close HMI, TIA Portal (online) or other programs and"
    " agents that are connected to it, or reserve more in TIA Portal (CPU properties, Connection"
    " resources)"
)

_NETWORK_ERRORS = {
    errno.ECONNREFUSED: ("refused", "nothing listens there: is it the PLC's address and port?"),
    errno.EHOSTUNREACH: ("unreachable", "no such station in this network: check cable and address"),
    errno.ENETUNREACH: ("unreachable", "no route to that network: check this PC's address"),
    errno.ECONNRESET: ("reset", "the PLC closed the connection"),
    errno.EPIPE: ("reset", "the PLC closed the connection"),
    errno.ETIMEDOUT: ("timeout", "no answer: check the PLC's power and cable"),
}


def network_error(error: OSError, host: str, port: int) -> PlcUnavailable:
    """An OSError in words for the person at the machine."""
    if isinstance(error, socket.gaierror):
        return PlcUnavailable("unknown_host", f"{host}: no such name; check `host:` or DNS")
    if isinstance(error, TimeoutError):
        return PlcUnavailable(
            "timeout", f"{host}:{port}: no answer; check the PLC's power and cable"
        )
    code, words = _NETWORK_ERRORS.get(error.errno or 0, ("network", str(error)))
    return PlcUnavailable(code, f"{host}:{port}: {words}")


def connections_full(host: str, port: int, why: str) -> PlcUnavailable:
    """The station is right, and has no connection left for us."""
    return PlcUnavailable("connections_full", f"{host}:{port}: {why}: {FULL}")


class _Silent(Exception):
    """Connected, and no answer in the handshake."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that is ready for requests."""

    socket: socket.socket
    """It does not block."""
    jobs: int
    """In flight at a time, granted."""
    pdu_bytes: int
    """Granted."""
    rest: bytes
    """What has come behind the handshake."""


def connect(
    host: str, port: int, tsaps: tuple[int, int], pdu_bytes: int, jobs: int, timeout_s: float
) -> Opened:
    """Connects and asks for so many jobs and such a PDU, within ``timeout_s``. Blocks. Raises
    PlcUnavailable.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        tcp = socket.create_connection((host, port), timeout_s)
    except UnicodeError:
        raise network_error(socket.gaierror(), host, port) from None
    except OSError as e:
        raise network_error(e, host, port) from None
    error: PlcUnavailable
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A pulled cable must show although nothing is in flight: probe after 5 s, 3 times.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1_000))
        return _Handshake(tcp, deadline_s).run(tsaps, pdu_bytes, jobs)
    except OSError as e:
        error = network_error(e, host, port)
    except t.ConnectionRefused as e:
        error = PlcUnavailable("refused_by_cpu", f"{host}:{port}: {e}")
        if e.is_full:
            error = connections_full(host, port, str(e))
    except t.ProtocolError as e:
        error = PlcUnavailable("protocol", f"{host}:{port}: {e}")
    except _Silent as e:
        error = PlcUnavailable("no_s7", f"{host}:{port}: {e}")
    tcp.close()
    raise error


class _Handshake:
    def __init__(self, tcp: socket.socket, deadline_s: float) -> None:
        self._socket = tcp
        self._deadline_s = deadline_s
        self._buffer = b""

    def run(self, tsaps: tuple[int, int], pdu_bytes: int, jobs: int) -> Opened:
        """Connection request, setup."""
        cotp = self._exchange(t.connection_request(*tsaps), "the connection request (COTP)")
        if not cotp:
            message = "closed in the handshake: wrong rack, slot or TSAP, or no connection free"
            raise t.ConnectionRefused(message)
        t.parse_connection_confirm(cotp)
        cotp = self._exchange(t.setup_request(0xFFFF, jobs, pdu_bytes), "the S7 setup")
        if not cotp or cotp[1] & 0xF0 == 0x80:
            # The TSAP is known, or it would have been refused before.
            raise t.ConnectionRefused("closed at the S7 setup", is_full=True)
        granted_jobs, granted_bytes = t.parse_setup(cotp[3:])
        if min(granted_bytes, pdu_bytes) < _PDU_MIN_BYTES:
            raise t.ProtocolError(f"the CPU grants a PDU of {granted_bytes} bytes only")
        self._socket.setblocking(False)
        granted_jobs = max(1, min(granted_jobs, jobs))
        return Opened(self._socket, granted_jobs, min(granted_bytes, pdu_bytes), self._buffer)

    def _exchange(self, request: bytes, what: str) -> bytes:
        """The COTP packet that answers; empty where the PLC closes the connection instead. Raises
        _Silent where it does nothing.
        """
        try:
            self._socket.sendall(request)
            return self._packet()
        except TimeoutError:
            message = f"accepts the connection, but no answer comes to {what}: {_SILENT}"
            raise _Silent(message) from None
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def _packet(self) -> bytes:
        while True:
            have = self._buffer
            whole_head = len(have) >= _TPKT_BYTES
            size = have[2] << 8 | have[3] if whole_head else 0
            if have[:1] not in (b"", b"\3") or (whole_head and size < t.TPKT_COTP_BYTES):
                raise t.ProtocolError(f"not a TPKT: {have[:4].hex()}: is this the PLC's S7 port?")
            if 0 < size <= len(have):
                self._buffer = have[size:]
                return have[_TPKT_BYTES:size]
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                return b""
            self._buffer += data
