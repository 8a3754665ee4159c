"""A process that speaks on the live wire as readers, outputs, store and mirrors would.

``python -m tests.kit.frames_feeder RUNTIME CONFIG.json``: for every PLC, output and mirror of the
rendered ``metrics`` configuration it sends what the real process sends. Lines of JSON on stdin
change what it says: ``{"plc": "prensa-01", "status": "offline", "failure": {…}}``,
``{"plc": …, "bad": {"corrente": "address_out_of_range"}}``, ``{"output": …, "status": "down",
"pending": 900, "oldest_s": 120, "fields": {…}}``, ``{"store": {"bytes": …}}``,
``{"restart": process}``, ``{"silence": process}``, ``{"event": [process, level, code, text]}``.
"""

from __future__ import annotations

import json
import math
import os
import random
import select
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from bus.frames import Event, Heartbeat, Scan, State
from bus.sockets import Bus, Port
from bus.topology import process_name, topic
from services.runtime.clock import now_ms
from services.runtime.stats import Stats

REAL_FIELDS = ("temperatura", "corrente", "pressao_bar", "velocidade", "vibracao")
LEVELS = (78.0, 12.4, 6.2, 1450.0, 0.12)


class Speaker:
    """One process: its port, its statistics."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.port: Port = bus.connect("live")
        self.stats = Stats(name, os.getpid(), now_ms())
        self.silent = False

    def restart(self) -> None:
        """Counts from 0 again, as a new process does."""
        self.stats = Stats(self.name, os.getpid(), now_ms())

    def say(self, kind: str, frame: Any, item: str = "") -> None:
        if not self.silent:
            self.port.send(frame, topic(kind, item or self.name))

    def say_stats(self) -> None:
        self.say("stats", self.stats.frame())


class PlcSpeaker(Speaker):
    """One reader."""

    def __init__(self, bus: Bus, plc: dict[str, Any], fields: int) -> None:
        super().__init__(bus, process_name("reader", plc["id"]))
        self.plc = plc
        self.fields = fields
        self.status = "online"
        self.failure: dict[str, Any] | None = None
        self.bad: dict[str, str] = {}
        self.ok = 0
        self.failed = 0
        self.seq = 0
        self.due = {g["name"]: 0.0 for g in plc["groups"]}
        self.phase = random.random() * 6
        self.epoch = now_ms()

    def scan(self, group: dict[str, Any], now_s: float) -> None:
        latency_ms = 2.1 + 1.4 * abs(math.sin(now_s / 40 + self.phase)) + random.random() * 0.6
        self.due[group["name"]] = now_s + group["scan_s"]
        if self.status == "offline":
            self.failed += 1
            self.stats.counter(
                "plc_edge_read_requests_total", plc=self.plc["id"], result="timeout"
            ).inc()
            return
        self.ok += 3
        labels = {"plc": self.plc["id"], "group": group["name"]}
        self.stats.histogram("plc_edge_scan_duration_seconds", **labels).observe(latency_ms / 1e3)
        self.stats.counter("plc_edge_scan_overruns_total", **labels)
        self.stats.counter("plc_edge_read_requests_total", plc=self.plc["id"], result="ok").inc(3)
        bodies = [
            self._body(group, m, now_s, latency_ms, n)
            for n, m in enumerate(group.get("machines") or [None])
        ]
        quality = "bad" if self.bad else "good"
        self.say(
            "scan",
            Scan(
                self.plc["id"],
                self.plc["locatario"],
                group["name"],
                now_ms(),
                latency_ms + 0.4,
                latency_ms,
                bodies,
                quality,
            ),
            self.plc["id"],
        )

    def _body(
        self, group: dict[str, Any], machine: str | None, now_s: float, latency_ms: float, n: int
    ) -> bytes:
        values: dict[str, Any] = {"maquina_ligada": (now_s + n * 3) % 40 < 32}
        for i in range(self.fields - 2):
            name = REAL_FIELDS[i % 5] + (f"_{i // 5}" if i >= 5 else "")
            level = LEVELS[i % 5]
            values[name] = round(level * (1 + 0.08 * math.sin(now_s / 30 + n + i)), 3)
        values["contador_bom"] = int(now_s * 2) + n * 1000
        bad = {k: v for k, v in self.bad.items() if k in values}
        for name in bad:
            del values[name]
        self.seq += 1
        body: dict[str, Any] = {
            "v": 1,
            "site": "planta-sp",
            "locatario_id": self.plc["locatario"],
            "plc_id": self.plc["id"],
            "ip": self.plc["host"],
            "group": group["name"],
            "measurement": "s7_db1",
        }
        if machine:
            body["machine"] = machine
        body |= {
            "ts": now_ms(),
            "epoch": self.epoch,
            "seq": self.seq,
            "quality": "bad" if bad else "good",
            "latency_ms": round(latency_ms, 2),
            "values": values,
        }
        if bad:
            body["bad"] = bad
        return orjson.dumps(body)

    def beat(self) -> None:
        online = self.status != "offline"
        self.stats.gauge("plc_edge_fields_bad", plc=self.plc["id"]).set(len(self.bad))
        self.stats.counter("plc_edge_reconnects_total", plc=self.plc["id"])
        self.stats.gauge("plc_edge_plc_up", plc=self.plc["id"]).set(online)
        self.say(
            "beat",
            Heartbeat(
                self.plc["id"],
                self.plc["locatario"],
                self.plc["host"],
                now_ms(),
                10.0,
                self.status,
                3.1 if online else 0.0,
                2.4 if online else 0.0,
                self.ok,
                self.failed,
                812.0,
                0,
                self.failure,
            ),
            self.plc["id"],
        )


class Feeder:
    """All speakers."""

    def __init__(self, bus: Bus, config: dict[str, Any], fields: int) -> None:
        self.plcs = {p["id"]: PlcSpeaker(bus, p, fields) for p in config["plcs"]}
        self.outputs = {
            o["name"]: Speaker(bus, process_name("publisher", o["name"])) for o in config["outputs"]
        }
        self.said: dict[str, dict[str, Any]] = {
            name: {
                "status": "ok",
                "pending": 3,
                "oldest_s": 0.4,
                "fields": {"target": "mqtts://broker.acme.local:8883"},
            }
            for name in self.outputs
        }
        self.mirrors = {
            m["name"]: Speaker(bus, process_name("mirror", m["name"])) for m in config["mirrors"]
        }
        self.store = Speaker(bus, "store_forward")
        self.store_said: dict[str, Any] = {"bytes": 48 * 2**20, "dropped": 0}
        speakers: list[Speaker] = [
            *self.plcs.values(),
            *self.outputs.values(),
            *self.mirrors.values(),
            self.store,
        ]
        self.speakers = {s.name: s for s in speakers}

    def step(self, now_s: float) -> None:
        for plc in self.plcs.values():
            for group in plc.plc["groups"]:
                if now_s >= plc.due[group["name"]]:
                    plc.scan(group, now_s)

    def each_second(self) -> None:
        for plc in self.plcs.values():
            plc.beat()
        store = self.store.stats
        for name, speaker in self.outputs.items():
            said = self.said[name]
            if said["status"] == "ok":
                speaker.stats.counter("plc_edge_published_total", output=name, result="ok").inc(42)
            latency = speaker.stats.histogram("plc_edge_publish_latency_seconds", output=name)
            latency.observe(0.02)
            store.gauge("plc_edge_store_pending", output=name).set(said["pending"])
            store.gauge("plc_edge_store_oldest_pending_seconds", output=name).set(said["oldest_s"])
            speaker.say("state", State(speaker.name, now_ms(), said["status"], said["fields"]))
        for name, speaker in self.mirrors.items():
            speaker.stats.counter("plc_edge_mirror_writes_total", mirror=name, result="ok").inc()
            fields = {"source": "prensa-01/db500", "target": "192.168.0.20 DB600",
                      "lag_ms": 3.4, "last_write_ms": now_ms() - 2_000, "bytes": 4_200,
                      "bytes_per_s": 42.0, "mismatches": 1, "refusals": 0}  # fmt: skip
            speaker.say("state", State(speaker.name, now_ms(), "ok", fields))
        store.gauge("plc_edge_store_bytes").set(self.store_said["bytes"])
        store.counter("plc_edge_store_dropped_total", reason="size").value = self.store_said[
            "dropped"
        ]
        self.store.say("state", State("store_forward", now_ms(), "ok", {}))
        for speaker in self.speakers.values():
            speaker.say_stats()

    def order(self, line: bytes) -> None:
        order: dict[str, Any] = json.loads(line)
        if "plc" in order:
            plc = self.plcs[order["plc"]]
            plc.status = order.get("status", plc.status)
            plc.failure = order.get("failure")
            plc.bad = order.get("bad", plc.bad)
            plc.beat()
        elif "output" in order:
            self.said[order["output"]] |= order
        elif "store" in order:
            self.store_said |= order["store"]
        elif "restart" in order:
            self.speakers[order["restart"]].restart()
        elif "silence" in order:
            self.speakers[order["silence"]].silent = True
        elif "event" in order:
            process, level, code, text = order["event"]
            self.speakers[process].say("event", Event(process, now_ms(), level, code, text))


def main() -> None:
    bus = Bus(Path(sys.argv[1]))
    config = json.loads(Path(sys.argv[2]).read_bytes())
    feeder = Feeder(bus, config, int(sys.argv[3]) if len(sys.argv) > 3 else 7)
    print("READY", flush=True)
    next_second = time.monotonic()
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable:
            # Not readline: what it buffers select would not see.
            data = os.read(0, 65_536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                feeder.order(line)
        now_s = time.monotonic()
        feeder.step(now_s)
        if now_s >= next_second:
            next_second += 1.0
            feeder.each_second()


if __name__ == "__main__":
    main()
