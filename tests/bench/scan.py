"""What a scan costs, wall and CPU, decoded, from the C snap7 server at PDU 480.

Baselines: raw sockets that send the same plan's prebuilt telegrams and only receive (the limit),
and python-snap7 as its documentation reads such data (the usual). CPU is this process's: the
server is another one.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from functools import partial

import snap7
from snap7.util import get_bool, get_string

from services.s7 import telegram as t
from services.s7.decode import Record
from services.s7.field import Field
from services.s7.plan import Extent, Plan, make_plan
from services.s7.session import Session
from tests.bench.result import Options, Result, compare, timed
from tests.kit.c_snap7 import CServer

TSAPS = (0x0100, 0x0201)
# The C server answers 20 items at most; CPUs answer what their PDU holds.
SERVER_ITEMS = 20
BLOCK_BYTES = 4_000
REALS, REAL_STRIDE = 1_000, 60
BOOLS, STRINGS, STRING_BYTES = 2_000, 100, 22


class Raw:
    """The limit: prebuilt telegrams, never more than ``jobs`` unanswered, replies unread."""

    def __init__(self, port: int, plan: Plan, pdu_bytes: int, jobs: int) -> None:
        self._first = b"".join(telegram.data for telegram in plan.telegrams[:jobs])
        self._rest = [telegram.data for telegram in plan.telegrams[jobs:]]
        sizes = [telegram.reply_bytes + t.TPKT_COTP_BYTES for telegram in plan.telegrams]
        # What must have come before each of the rest may be sent, and in the end.
        self._marks = [sum(sizes[: n + 1]) for n in range(len(self._rest))]
        self._all = sum(sizes)
        self._buffer = memoryview(bytearray(65_536))
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(t.connection_request(*TSAPS))
        self.socket.recv(100)
        self.socket.sendall(t.setup_request(1, jobs, pdu_bytes))
        self.socket.recv(100)

    def scan(self) -> None:
        """One."""
        self.socket.sendall(self._first)
        have = 0
        for mark, data in zip(self._marks, self._rest, strict=True):
            while have < mark:
                have += self.socket.recv_into(self._buffer)
            self.socket.sendall(data)
        while have < self._all:
            have += self.socket.recv_into(self._buffer)


def client(port: int) -> snap7.client.Client:
    """python-snap7 3.3, as its documentation connects it."""
    c = snap7.client.Client()
    c.connect("127.0.0.1", 0, 1, port)
    return c


def by_tags(usual: snap7.client.Client, tags: list[str]) -> list[float]:
    """As many as the server answers at a time."""
    out: list[float] = []
    for at in range(0, len(tags), SERVER_ITEMS):
        out += usual.read_tags(tags[at : at + SERVER_ITEMS])
    return out


Usual = Callable[[snap7.client.Client], object]


def shapes() -> dict[str, tuple[bytes, list[Field], str, Usual]]:
    """Name -> (the DB, its fields, what python-snap7 does, its call); both give the same values."""
    close = [Field(f"f{i}", "REAL", db=1, byte=4 * i) for i in range(BLOCK_BYTES // 4)]
    far = [Field(f"f{i}", "REAL", db=1, byte=i * REAL_STRIDE) for i in range(REALS)]
    bits = [Field(f"f{i}", "BOOL", db=1, byte=i // 8, bit=i % 8) for i in range(BOOLS)]
    texts = [Field(f"f{i}", "STRING[20]", db=1, byte=i * STRING_BYTES)
             for i in range(STRINGS)]  # fmt: skip
    reals = struct.pack(f">{REALS}f", *(i / 8 for i in range(REALS)))
    spread = b"".join(reals[at : at + 4].ljust(REAL_STRIDE, b"-") for at in range(0, 4_000, 4))
    words = b"".join(bytes((20, 9)) + (b"molde %03d" % i).ljust(20) for i in range(STRINGS))
    tags = [f"DB1.DBD{f.byte}:REAL" for f in far]

    def read_bits(c: snap7.client.Client) -> list[bool]:
        data = c.db_read(1, 0, BOOLS // 8)
        return [get_bool(data, f.byte, f.bit) for f in bits]

    def read_texts(c: snap7.client.Client) -> list[str]:
        data = c.db_read(1, 0, len(words))
        return [get_string(data, f.byte) for f in texts]

    return {
        "1,000 contiguous REALs": (
            reals, close, "db_read_array", lambda c: c.db_read_array(1, 0, REALS)),
        "1,000 scattered REALs": (spread, far, "read_tags by 20", lambda c: by_tags(c, tags)),
        "2,000 BOOLs": (os.urandom(BOOLS // 8), bits, "db_read + get_bool", read_bits),
        "100 STRING[20]": (words, texts, "db_read + get_string", read_texts),
    }  # fmt: skip


def scan(session: Session, plan: Plan, record: Record) -> list[object]:
    """Ours: reads and decodes as if every value had changed."""
    record.forget()
    record.changed(bytes(session.read(plan.telegrams, plan.image_bytes).image))
    return [*record.values.values()]


def bench(options: Options) -> list[Result]:
    """Each shape."""
    rounds = options.rounds or (3 if options.quick else 7)
    calls = 3 if options.quick else 10
    results = []
    for name, (data, fields, usual_name, usual) in shapes().items():
        with CServer({1: data}) as server:
            session = Session("127.0.0.1", server.port, TSAPS, pdu_bytes=480)
            extents = [Extent("DB", 1, f.byte, f.size_bytes) for f in fields]
            plan = make_plan(extents, session.pdu_bytes, max_items=SERVER_ITEMS)
            record = Record([f.at(plan.place(e)) for f, e in zip(fields, extents, strict=True)])
            raw = Raw(server.port, plan, session.pdu_bytes, session.jobs)
            other = client(server.port)

            ours, theirs = partial(scan, session, plan, record), partial(usual, other)
            assert ours() == theirs(), name
            base = {
                "raw sockets, not decoded": timed(raw.scan, calls),
                f"python-snap7 {usual_name}": timed(theirs, calls),
            }
            results += compare("scan", name, timed(ours, calls), base, rounds)
            other.disconnect()
            raw.socket.close()
            session.close()
    return results
