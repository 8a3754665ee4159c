"""Packing and unpacking the frames of a scan, against bare msgpack of the same tuple; and the live
wire, against bare ZeroMQ PUB/SUB of the same bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgpack
import zmq

from bus.frames import Frame, Sample, Scan, pack, unpack
from bus.sockets import Bus
from bus.topology import topic
from tests.bench.result import Measure, Options, Result, compare, cpu_only, timed

BATCH = 1_000


def many(run: object, given: object) -> Measure:
    """µs of CPU for one call."""

    def batch() -> None:
        for _ in range(BATCH):
            run(given)  # type: ignore[operator]

    measure = cpu_only(timed(batch, 9))
    return lambda: {"µs CPU": measure()["µs CPU"] / BATCH}


def bench(options: Options) -> list[Result]:
    """Each of both ways, and the live wire."""
    rounds = options.rounds or (3 if options.quick else 7)
    body = b"x" * 300
    epoch, now = 1763999000123, 1764000000123
    frames: dict[str, Frame] = {
        "Sample, 300 B": Sample("prensa-01", "acme", epoch, 4182, now, body),
        "Scan, 8 machines": Scan("prensa-01", "acme", "db500", now, 2.4, 2.1, [body] * 8),
    }
    results = []
    for name, frame in frames.items():
        data = pack(frame)
        values = tuple(msgpack.unpackb(data))
        assert msgpack.packb(values) == data
        assert pack(unpack(data)) == data
        ours, bare = many(pack, frame), many(msgpack.packb, values)
        results += compare("frames", f"pack {name}", ours, {"bare msgpack": bare}, rounds)
        ours, bare = many(unpack, data), many(msgpack.unpackb, data)
        results += compare("frames", f"unpack {name}", ours, {"bare msgpack": bare}, rounds)
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as folder:
        results += live_wire(Path(folder), frames["Scan, 8 machines"], rounds)
    return results


def live_wire(folder: Path, frame: Frame, rounds: int) -> list[Result]:
    """One Scan from a reader's PUB to the metrics process's SUB, both ends here."""
    bus = Bus(folder)
    name = topic("scan", "prensa-01")
    sink = bus.bind("live")
    sink.subscribe(b"")
    source = bus.connect("live")
    context = zmq.Context()
    pub, sub = context.socket(zmq.PUB), context.socket(zmq.SUB)
    sub.setsockopt(zmq.SUBSCRIBE, b"")
    sub.bind(f"ipc://{folder}/bare")
    pub.connect(f"ipc://{folder}/bare")
    data = pack(frame)

    def ours() -> None:
        # The wire holds 10 parts by design: full until the news of the last take is back.
        while not source.send(frame, name):
            pass
        while sink.receive() is None:
            sink.socket.poll(1_000)

    def bare() -> None:
        pub.send_multipart((name, data))
        sub.poll(1_000)
        sub.recv_multipart()

    # A subscription takes a moment to arrive; until then everything is dropped.
    for end, send in ((sink.socket, lambda: source.send(frame, name)),
                      (sub, lambda: pub.send_multipart((name, data)))):  # fmt: skip
        while not end.poll(10):
            send()
        while end.poll(50):
            end.recv_multipart()
    result = compare("frames", "live wire, one Scan of 8 machines sent and taken", timed(ours, 200),
                     {"bare ZeroMQ PUB/SUB": timed(bare, 200)}, rounds)  # fmt: skip
    context.destroy(0)
    bus.close()
    return result
