"""4,000 contiguous bytes by PDU, parallel jobs and round trip time, not decoded.

Baselines: raw sockets with the same telegrams and as many of them in flight; python-snap7
``db_read``; and where the line is long, what it takes at least: requests over jobs × round trip.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from services.s7.plan import Extent, make_plan
from services.s7.session import Session
from tests.bench.result import Options, Result, compare, timed
from tests.bench.scan import BLOCK_BYTES, TSAPS, Raw, client
from tests.kit.c_snap7 import CServer

# What python-snap7 asks for, whatever is wanted.
USUAL_PDU_BYTES = 480
EXTENTS = [Extent("DB", 1, i, 4) for i in range(0, BLOCK_BYTES, 4)]


@contextmanager
def far_away(port: int, rtt_ms: float) -> Iterator[int]:
    """The same server at the other end of a longer line."""
    if not rtt_ms:
        yield port
        return
    command = [sys.executable, "-m", "tests.kit.delay_proxy", str(port), str(rtt_ms / 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline().split()[1])
        finally:
            proxy.terminate()


def one(
    port: int, data: bytes, pdu_bytes: int, jobs: int, rtt_ms: float, rounds: int
) -> list[Result]:
    """One line of the matrix; the port may be a proxy's."""
    calls = 20 if rtt_ms == 0 else 3
    session = Session("127.0.0.1", port, TSAPS, pdu_bytes=pdu_bytes, jobs=jobs)
    assert (session.pdu_bytes, session.jobs) == (pdu_bytes, jobs)
    plan = make_plan(EXTENTS, pdu_bytes)
    raw = Raw(port, plan, pdu_bytes, jobs)
    usual = client(port)
    assert bytes(session.read(plan.telegrams, plan.image_bytes).image) == data
    assert bytes(usual.db_read(1, 0, BLOCK_BYTES)) == data
    base = {"raw sockets": timed(raw.scan, calls)}
    if pdu_bytes == USUAL_PDU_BYTES or rtt_ms:
        read = partial(usual.db_read, 1, 0, BLOCK_BYTES)
        base[f"python-snap7 db_read, PDU {USUAL_PDU_BYTES}"] = timed(read, calls)
    if rtt_ms:
        least_us = plan.scan_s(rtt_ms / 1e3, jobs) * 1e6
        base["requests ÷ jobs × RTT"] = lambda: {"µs wall": least_us}
    ours = timed(lambda: session.read(plan.telegrams, plan.image_bytes), calls)
    name = f"4,000 B, PDU {pdu_bytes}, jobs {jobs}, RTT {rtt_ms:g} ms"
    results = compare("network", name, ours, base, rounds)
    usual.disconnect()
    raw.socket.close()
    session.close()
    return results


def bench(options: Options) -> list[Result]:
    """PDU × jobs on loopback, then the round trip times at PDU 240 and 3 jobs (an S7-1200)."""
    rounds = options.rounds or 5
    data = os.urandom(BLOCK_BYTES)
    results = []
    with CServer({1: data}) as server:
        for pdu_bytes in (240, 480, 960):
            for jobs in (1, 3, 8):
                results += one(server.port, data, pdu_bytes, jobs, 0, rounds)
        for rtt_ms in (2.0, 5.0, 10.0):
            with far_away(server.port, rtt_ms) as port:
                results += one(port, data, 240, 3, rtt_ms, rounds)
    return results
