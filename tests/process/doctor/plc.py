"""A PLC with faults, in a thread: the simulator's CPU behind a gate that knows its TSAP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from services.simulator.server import Server
from services.simulator.station import DB, Station


@contextmanager
def plc(
    db500_bytes: int = 56, tsap: int | None = None, put_get: bool = True, running: bool = True
) -> Iterator[int]:
    """Its port. ``db500_bytes`` 0: no such block (or an optimised one, which answers the same).

    ``tsap``: the only remote TSAP that it accepts, e.g. 0x0202 for OP, slot 2.
    """
    station = Station("prensa-01", running=running, refuses=not put_get)
    if db500_bytes:
        station.area(DB, 500, db500_bytes)
    server = Server(lambda: None, 0.05)
    place = server.add(station, "127.0.0.1", 0)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.step()
        server.close()

    threads = [threading.Thread(target=serve)]
    gate = socket.create_server(("127.0.0.1", 0))
    if tsap is not None:
        threads.append(threading.Thread(target=_guard, args=(gate, place.port, tsap)))
    for thread in threads:
        thread.start()
    try:
        yield int(gate.getsockname()[1]) if tsap is not None else place.port
    finally:
        ended.set()
        # accept() does not notice close() in another thread.
        gate.shutdown(socket.SHUT_RDWR)
        gate.close()
        for thread in threads:
            thread.join(5)


def _guard(gate: socket.socket, port: int, tsap: int) -> None:
    while True:
        try:
            caller, _ = gate.accept()
        except OSError:
            return
        threading.Thread(target=_pass, args=(caller, port, tsap), daemon=True).start()


def _pass(caller: socket.socket, port: int, tsap: int) -> None:
    """Hands a connection to the CPU if its COTP request names the right TSAP (ISO 8073 C2)."""
    with caller, socket.create_connection(("127.0.0.1", port)) as cpu:
        request = caller.recv(64)
        if b"\xc2\x02" + tsap.to_bytes(2, "big") not in request:
            return
        cpu.sendall(request)
        back = threading.Thread(target=_copy, args=(cpu, caller), daemon=True)
        back.start()
        _copy(caller, cpu)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4_096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
