"""What reading costs, against the limit and against the usual: ``python -m tests.bench.read_path
[ROUNDS]``.

Every figure is a ratio of medians of runs that took turns, so what else the machine does meets all
alike. CPU is this process's: the C snap7 server is another one.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import snap7

from services.s7 import telegram as t
from services.s7.decode import Record
from services.s7.field import Field
from services.s7.plan import Extent, Plan, make_plan
from services.s7.session import Session
from tests.kit.c_snap7 import CServer

TSAPS = (0x0100, 0x0201)
CONTIGUOUS_BYTES = 4_000
REALS, STRIDE = 1_000, 60
# The C server answers 20 items at most; CPUs answer what their PDU holds.
SERVER_ITEMS = 20
DELAY_MS = 5
TURN = 10

Run = Callable[[], object]


class Raw:
    """The limit: telegrams made beforehand, one send, and receiving until all bytes are here."""

    def __init__(self, port: int, plan: Plan, session: Session) -> None:
        self.data = b"".join(telegram.data for telegram in plan.telegrams)
        self.expected = sum(telegram.reply_bytes + t.TPKT_COTP_BYTES for telegram in plan.telegrams)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(t.connection_request(*TSAPS))
        self.socket.recv(100)
        self.socket.sendall(t.setup_request(1, session.jobs, session.pdu_bytes))
        self.socket.recv(100)
        self.buffer = memoryview(bytearray(self.expected))

    def scan(self) -> None:
        self.socket.sendall(self.data)
        have = 0
        while have < self.expected:
            have += self.socket.recv_into(self.buffer[have:])

    def one_at_a_time(self, plan: Plan) -> None:
        for telegram in plan.telegrams:
            self.socket.sendall(telegram.data)
            want = telegram.reply_bytes + t.TPKT_COTP_BYTES
            have = 0
            while have < want:
                have += self.socket.recv_into(self.buffer[have:])


def measure(runs: dict[str, Run], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU of each, µs; they take turns of TURN calls."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(-(-rounds // TURN)):
        for name, run in runs.items():
            for n in range(TURN + 1):
                cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
                run()
                wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
                if n:  # the first of a turn finds the caches full of another
                    wall[name].append(wall_ns / 1e3)
                    cpu[name].append(cpu_ns / 1e3)
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in runs}


def line(what: str, got: float, target: str, kept: bool) -> None:
    print(f"| {what} | {got:.2f} | {target} | {'yes' if kept else 'NO'} |")


def table(title: str, got: dict[str, tuple[float, float]]) -> None:
    print(f"\n**{title}**\n\n| | wall µs | CPU µs |\n|---|---:|---:|")
    for name, (wall, cpu) in got.items():
        print(f"| {name} | {wall:.0f} | {cpu:.0f} |")
    print("\n| ratio | measured | target | kept |\n|---|---:|---|---|")


def client(port: int) -> snap7.client.Client:
    """python-snap7 3.3, as its documentation connects it."""
    c = snap7.client.Client()
    c.connect("127.0.0.1", 0, 1, port)
    return c


def contiguous(rounds: int) -> None:
    data = os.urandom(CONTIGUOUS_BYTES)
    with CServer({1: data}) as server:
        session = Session("127.0.0.1", server.port, TSAPS, pdu_bytes=480)
        extents = [Extent("DB", 1, i, 4) for i in range(0, CONTIGUOUS_BYTES, 4)]
        plan = make_plan(extents, session.pdu_bytes)
        raw = Raw(server.port, plan, session)
        usual = client(server.port)
        assert bytes(session.read(plan.telegrams, plan.image_bytes).image) == data
        assert bytes(usual.db_read(1, 0, CONTIGUOUS_BYTES)) == data
        got = measure(
            {
                "raw sockets, prebuilt, pipelined": raw.scan,
                "raw sockets, prebuilt, one at a time": lambda: raw.one_at_a_time(plan),
                "plc-edge": lambda: session.read(plan.telegrams, plan.image_bytes),
                "python-snap7 3.3 db_read": lambda: usual.db_read(1, 0, CONTIGUOUS_BYTES),
            },
            rounds,
        )
        usual.disconnect()
        session.close()
    table(f"{CONTIGUOUS_BYTES} contiguous bytes, PDU {session.pdu_bytes}, C snap7 server", got)
    limit, _, ours, theirs = got.values()
    line("wall, of the raw limit", ours[0] / limit[0], "≤ 1.5", ours[0] <= 1.5 * limit[0])
    line("CPU, of the raw limit", ours[1] / limit[1], "≤ 2", ours[1] <= 2 * limit[1])
    line("faster than db_read", theirs[0] / ours[0], "≥ 4", theirs[0] >= 4 * ours[0])


def scattered(rounds: int) -> None:
    data = bytearray(REALS * STRIDE)
    for i in range(REALS):
        struct.pack_into(">f", data, i * STRIDE, i / 8)
    fields = [Field(f"f{i}", "REAL", db=1, byte=i * STRIDE) for i in range(REALS)]
    with CServer({1: bytes(data)}) as server:
        session = Session("127.0.0.1", server.port, TSAPS, pdu_bytes=480)
        extents = [Extent("DB", 1, f.byte, 4) for f in fields]
        plan = make_plan(extents, session.pdu_bytes, max_items=SERVER_ITEMS)
        mapped = [
            Field(f.name, "REAL", byte=plan.place(Extent("DB", 1, f.byte, 4))) for f in fields
        ]
        record = Record(mapped)

        def ours() -> list[float]:
            record.forget()  # as if every value had changed
            record.changed(bytes(session.read(plan.telegrams, plan.image_bytes).image))
            return [*record.values.values()]

        usual = client(server.port)
        tags = [f"DB1.DBD{f.byte}:REAL" for f in fields]

        def theirs() -> list[float]:
            out: list[float] = []
            for at in range(0, REALS, SERVER_ITEMS):
                out += usual.read_tags(tags[at : at + SERVER_ITEMS])
            return out

        assert ours() == theirs() == [i / 8 for i in range(REALS)]
        got = measure({"plc-edge": ours, "python-snap7 3.3 read_tags by 20": theirs}, rounds)
        usual.disconnect()
        session.close()
    title = f"{REALS} scattered REALs, decoded; {SERVER_ITEMS} items a telegram, C snap7 server"
    table(title, got)
    mine, usual_cost = got.values()
    line("less wall time", usual_cost[0] / mine[0], "≥ 10", usual_cost[0] >= 10 * mine[0])
    line("less CPU", usual_cost[1] / mine[1], "≥ 10", usual_cost[1] >= 10 * mine[1])
    for pdu_bytes in (240, 480, 960):
        count = len(make_plan(extents, pdu_bytes).telegrams)
        print(f"\nAt PDU {pdu_bytes} a CPU needs {count} telegrams ({REALS // 20} by 20).", end="")
    print()


@contextmanager
def far_away(port: int) -> Iterator[int]:
    """The same server at the other end of a longer line."""
    command = [sys.executable, "-m", "tests.kit.delay_proxy", str(port), str(DELAY_MS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline().split()[1])
        finally:
            proxy.terminate()


def far(rounds: int) -> None:
    with CServer({1: bytes(CONTIGUOUS_BYTES)}) as server, far_away(server.port) as port:
        session = Session("127.0.0.1", port, TSAPS, pdu_bytes=240, jobs=3)
        extents = [Extent("DB", 1, i, 4) for i in range(0, CONTIGUOUS_BYTES, 4)]
        plan = make_plan(extents, session.pdu_bytes)
        one = make_plan(extents[:10], session.pdu_bytes)
        got = measure(
            {
                "one request": lambda: session.read(one.telegrams, one.image_bytes),
                "scan": lambda: session.read(plan.telegrams, plan.image_bytes),
            },
            rounds,
        )
        session.close()
    count = len(plan.telegrams)
    trips = -(-count // session.jobs)
    table(f"+{DELAY_MS} ms each way, PDU 240, 3 jobs: {count} requests, {trips} round trips", got)
    rtt_us, scan_us = got["one request"][0], got["scan"][0]
    least_us = trips * 2 * DELAY_MS * 1e3
    line(f"scan, of {trips} × {2 * DELAY_MS} ms", scan_us / least_us, "≤ 1.2",
         scan_us <= 1.2 * least_us)  # fmt: skip
    line(f"scan, of {trips} × one request", scan_us / (trips * rtt_us), "", True)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    contiguous(rounds)
    scattered(max(20, rounds // 6))
    far(max(10, rounds // 15))
