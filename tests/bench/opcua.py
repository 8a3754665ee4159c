"""One reader of an OPC UA server (node-opcua) of which 1,000 nodes change ten times a second, all
at once: subscribed, and read. The baseline is asyncua's own subscription at the same server, right
afterwards: its handler counts the values and does nothing else.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from asyncua import Client, ua

from tests.bench.result import Figures, Options, Result, rows
from tests.bench.watch import Cpu
from tests.kit.opcua import NodeServer, opcua_plc, place, reading

NODES, PERIOD_MS = 1_000, 100
SETTLE_S = 3.0


def ours(port: int, mode: str, seconds: float) -> Figures:
    """Values that reached the keep wire, the reader's CPU and memory."""
    group = {"mode": mode, "scan": "100ms", "sampling": "100ms"}
    security = {"policy": "none"}
    plc = opcua_plc(port, {f"n{n}": "LREAL" for n in range(NODES)}, group=group, security=security)
    with reading(plc) as rig:
        time.sleep(SETTLE_S)
        cpu = Cpu([rig.service.pid])
        before, begin_s = len(rig.messages), time.monotonic()
        seen, ages_ms = before, []
        while (took_s := time.monotonic() - begin_s) < seconds:
            time.sleep(0.002)
            newer = rig.messages[seen:]
            ages_ms += [time.time() * 1_000 - m["ts"] for m in newer]
            seen += len(newer)
        messages = rig.messages[before:seen]
        return {
            "messages/s": len(messages) / took_s,
            "values/s": sum(len(m["values"]) for m in messages) / took_s,
            "% of a core": cpu.percent(),
            "ms from the server's time to the keep wire, median": statistics.median(ages_ms),
            "MB": psutil.Process(rig.service.pid).memory_info().rss / 2**20,
        }


class _Counter:
    """asyncua's handler."""

    def __init__(self) -> None:
        self.count = 0

    def datachange_notification(self, *_: Any) -> None:
        self.count += 1


async def usual(port: int, seconds: float) -> Figures:
    """The same with asyncua alone, as its documentation shows."""
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        number = await client.get_namespace_index("urn:plc-edge:test:plant")
        counter = _Counter()
        subscription = await client.create_subscription(PERIOD_MS, counter)
        names = [place(f"n{n}").rpartition(";")[2] for n in range(NODES)]
        nodes = [client.get_node(ua.NodeId.from_string(f"ns={number};{n}")) for n in names]
        await subscription.subscribe_data_change(nodes, sampling_interval=PERIOD_MS)
        await asyncio.sleep(SETTLE_S)
        before, cpu_s, begin_s = counter.count, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - begin_s
        cpu_s = time.process_time() - cpu_s
        return {"values/s": (counter.count - before) / took_s, "% of a core": 100 * cpu_s / took_s}


def bench(options: Options) -> list[Result]:
    """Subscribed, then read."""
    seconds = options.seconds or 10
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        NodeServer(Path(folder), many=NODES, policies=["None"]) as server,
    ):
        server("churn", period_ms=PERIOD_MS)
        for mode, name in (("subscribe", "1,000 nodes subscribed, 10 Hz"),
                           ("scan", "1,000 nodes read, 10 Hz")):  # fmt: skip
            done = []
            for _ in range(options.rounds or 3):
                mine = ours(server.port, mode, seconds)
                theirs = asyncio.run(usual(server.port, seconds / 2))
                done.append((mine, {"asyncua's own subscription": theirs}))
            results += rows("opcua", name, done)
    return results
