"""One scan, beside raw prebuilt pipelined telegrams and python-snap7, from the C snap7 server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import accumulate

import snap7

from services.s7 import plan as p
from services.s7 import telegram as t
from services.s7.session import Session
from tests.bench.table import Figure, interleave
from tests.kit.c_snap7 import CServer

DB = 1
TSAPS = (0x0200, 0x0102)
# The C server cuts a request at 20 items.
MAX_ITEMS = 20


def raw(port: int, pdu_bytes: int, jobs: int, telegrams: list[p.Telegram]) -> Callable[[], None]:
    """The limit: bytes out, bytes in counted, nothing looked at."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for request in (t.connection_request(*TSAPS), t.setup_request(1, jobs, pdu_bytes)):
        sock.sendall(request)
        sock.recv(4_096)
    requests = [x.data for x in telegrams]
    # 4 TPKT + 3 COTP before the S7 PDU; the last item of a reply is not padded to even.
    sizes = [7 + x.reply_bytes - x.items[-1].length % 2 for x in telegrams]
    first, ends = b"".join(requests[:jobs]), list(accumulate(sizes))

    def scan() -> None:
        sock.sendall(first)
        sent, answered, got = min(jobs, len(requests)), 0, 0
        while answered < len(ends):
            got += len(sock.recv(65_536))
            while answered < len(ends) and got >= ends[answered]:
                answered += 1
            if sent < len(requests) and sent < answered + jobs:
                sock.sendall(b"".join(requests[sent : answered + jobs]))
                sent = min(answered + jobs, len(requests))
        assert got == ends[-1]

    return scan


def measure(quick: bool) -> list[Figure]:
    """Contiguous bytes against both; scattered REALs against ``read_tags``."""
    rounds = 7 if quick else 25
    figures: list[Figure] = []
    blocks = {DB: bytes(range(256)) * 256}
    with CServer({n: data[:65_530] for n, data in blocks.items()}) as server:
        client = snap7.Client()
        client.connect("127.0.0.1", 0, 1, server.port)
        # It asks for PDU 480 and one job, whatever ours asks for.
        by_client = {"db_read": lambda: client.db_read(DB, 0, 4_000)}
        for pdu_bytes in (480,) if quick else (240, 480, 960):
            for jobs in (8,) if quick else (1, 3, 8):
                extents = [p.Extent("DB", DB, 2 * i, 2) for i in range(2_000)]
                session = Session("127.0.0.1", server.port, TSAPS, pdu_bytes=pdu_bytes, jobs=jobs)
                scan = p.make_plan(extents, session.pdu_bytes, max_items=MAX_ITEMS)
                p.number(scan.telegrams, 1)
                base = raw(server.port, pdu_bytes, session.jobs, scan.telegrams)
                figures += interleave(
                    "scan", f"4,000 B, PDU {session.pdu_bytes}, {session.jobs} jobs",
                    lambda s=session, x=scan: s.read(x.telegrams, x.image_bytes),
                    {"raw": base} | (by_client if pdu_bytes == 480 else {}),
                    rounds=rounds, repeats=10,
                    targets={("raw", "wall"): "≤ 1.5", ("db_read", "wall"): "≤ 0.25",
                             ("raw", "CPU"): "≤ 2"} if (pdu_bytes, jobs) == (480, 8) else None,
                )  # fmt: skip
                session.close()
        session = Session("127.0.0.1", server.port, TSAPS, pdu_bytes=480)
        scan = p.make_plan(
            [p.Extent("DB", DB, 60 * i, 4) for i in range(1_000)], 480, max_items=MAX_ITEMS
        )
        p.number(scan.telegrams, 1)
        tags = [f"DB{DB}.DBD{60 * i}:REAL" for i in range(1_000)]

        def by_tags() -> None:
            for i in range(0, len(tags), 20):
                client.read_tags(tags[i : i + 20])

        figures += interleave(
            "scan", "1,000 scattered REALs, undecoded",
            lambda: session.read(scan.telegrams, scan.image_bytes), {"read_tags by 20": by_tags},
            rounds=rounds, repeats=2,
            targets={("read_tags by 20", c): "≤ 0.1" for c in ("wall", "CPU")},
        )  # fmt: skip
        session.close()
        client.disconnect()
    return figures
