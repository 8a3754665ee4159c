"""The historian as a process, beside a real store_forward: killed anywhere, what is delivered is
there once; it answers on its wire, and says what it cannot do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import zmq

from bus.frames import Reply, Request
from bus.sockets import Bus
from services.historian.reading import History
from services.historian.shapes import HOUR_MS
from services.runtime.clock import now_ms
from tests.kit.common import until
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source
from tests.kit.store_rig import STORE_CONFIG

POINTS = (
    "consumer.taken", "consumer.before_commit", "historian.saving", "consumer.after_commit",
    "consumer.before_receipt", "historian.rolled", "historian.sealed",
)  # fmt: skip
# Hours that are over are condensed at once.
AGO_MS = 5 * HOUR_MS


class World:
    """The store, a reader's sequence, and what it has sent."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.source = Source(run, "p1")
        self.sent: list[dict[str, Any]] = []
        self.ts_ms = (now_ms() - AGO_MS) // HOUR_MS * HOUR_MS

    def store(self) -> dict[str, Any]:
        output = {"name": "historian", "locatarios": None, "from": "oldest", "strict": True}
        return {
            "process": "store_forward", "folder": "store_forward", "item": "", "site": "planta-sp",
            "locatario": "acme", "runtime": str(self.run), "state": str(self.run),
            "store": STORE_CONFIG, "outputs": [output],
            "plcs": [{"id": "p1", "locatario": "acme"}],
        }  # fmt: skip

    def historian(self) -> dict[str, Any]:
        fields = [{"name": "a", "type": "REAL", "unit": "", "counts": False, "scaled": False}]
        group = {"locatario": "acme", "plc": "p1", "group": "g", "hold_ms": 65_000}
        day_ms = 24 * HOUR_MS
        return {
            "process": "historian", "folder": "historian", "item": "", "site": "planta-sp",
            "locatario": "acme", "runtime": str(self.run), "state": str(self.run),
            "groups": [{**group, "fields": fields}], "max_size_bytes": 2**30, "min_free_bytes": 0,
            "max_age_ms": {"raw": 31 * day_ms, "minute": 366 * day_ms, "hour": 3_660 * day_ms},
        }  # fmt: skip

    def feed(self, count: int) -> None:
        """So many messages, 20 s apart."""
        for _ in range(count):
            self.ts_ms += 20_000
            self.source.publish(self._message, self.ts_ms)
        self.source.step()

    def _message(self, epoch: int, seq: int) -> bytes:
        message = {
            "v": 1, "locatario_id": "acme", "plc_id": "p1", "group": "g", "ts": self.ts_ms,
            "epoch": epoch, "seq": seq, "quality": "good", "latency_ms": 2.5,
            "values": {"a": seq / 4, "ligada": seq % 3 == 0},
        }  # fmt: skip
        if not self.sent or self.sent[-1]["seq"] < seq:
            self.sent.append(message)
        return orjson.dumps(message)

    def check(self) -> None:
        """Waits for the last one; then all are there, each once, as they were sent."""
        self.source.drain()
        history = History(self.run / "history")
        try:
            end_ms = now_ms() + HOUR_MS

            def got() -> list[dict[str, Any]]:
                found = history.messages("p1", end_ms - 3 * AGO_MS, end_ms)
                return [m for topic, m in found if topic == "plc/acme/p1"]

            until(lambda: len(got()) >= len(self.sent), 20, lambda: f"{len(got())} are there")
            assert got() == self.sent
            assert history.damage == []
        finally:
            history.close()


@contextmanager
def world() -> Iterator[World]:
    with run_folder() as run:
        it = World(run)
        try:
            yield it
        finally:
            it.source.close()


def test_killed_anywhere_all_is_there_once() -> None:
    chance = random.Random(4)
    with world() as w:
        store = Service(w.store())
        try:
            for point in POINTS:
                failpoint = f"{point}:1"
                with service(w.historian(), {"PLC_EDGE_FAILPOINT": failpoint}) as doomed:
                    deadline_s = time.monotonic() + 30
                    while doomed.process.poll() is None:
                        w.feed(chance.randint(1, 4))
                        assert time.monotonic() < deadline_s, f"{point}: {doomed.stderr()}"
                if chance.random() < 0.3:
                    store.kill()
                    w.feed(5)
                    store = Service(w.store())
            with service(w.historian()) as last:
                w.check()
                assert last.terminate() == 0
            w.check()
        finally:
            store.end()


def ask(run: Path, verb: str, **args: Any) -> Reply:
    bus = Bus(run)
    port = bus.connect("history")
    try:
        until(lambda: port.send(Request(verb, args)), 5, "nobody is there")
        assert port.socket.poll(5_000, zmq.POLLIN), "no answer"
        reply = port.receive()
        assert isinstance(reply, Reply)
        return reply
    finally:
        bus.close()


def test_it_answers_on_its_wire() -> None:
    with world() as w, service(w.store()), service(w.historian()):
        begin_ms = w.ts_ms
        w.feed(90)
        w.check()
        (info, other) = ask(w.run, "series", plc="p1").result["series"]
        assert (info["series"], info["kind"], info["type"]) == (
            ["acme", "p1", "g", "", "a"], "number", "REAL",
        )  # fmt: skip
        assert other["kind"] == "bool"
        span = {"begin_ms": begin_ms, "end_ms": begin_ms + HOUR_MS}
        (rolled,) = ask(w.run, "rolled", series=[info["series"]], points=6, **span).result["series"]
        assert sum(rolled["count"]) == 90
        assert sum(rolled["known_ms"]) == 89 * 20_000
        (raw,) = ask(w.run, "raw", series=[info["series"]], **span).result["series"]
        assert raw["values"] == [m["values"]["a"] for m in w.sent]
        refused = ask(w.run, "rolled", series=[info["series"]] * 21, points=6, **span)
        assert refused.error == "21 series are more than 20: ask for fewer at once"
        assert "unknown question" in ask(w.run, "nonsense").error
        assert "is missing" in ask(w.run, "raw", series=[info["series"]]).error


def test_a_file_that_is_none_of_ours_is_put_aside() -> None:
    with world() as w, service(w.store()):
        with service(w.historian()) as first:
            w.feed(10)
            w.check()
            assert first.terminate() == 0
        for name in ("recent.db", "series.json"):
            (w.run / "history" / name).write_bytes(b"no database at all" * 999)
        w.sent = []
        with service(w.historian()) as again:
            w.feed(10)
            w.check()
            assert again.said("history_damaged")
        assert (w.run / "history" / "recent.damaged").exists()
