"""A real store, readers' sequences and an output with ``reduce:``, and who judges what arrived.

Messages carry times of their own, a second apart, so that minutes pass in a moment.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.runtime.clock import now_ms
from tests.kit.common import until
from tests.kit.http_sink import Answer, HttpSink, Post
from tests.kit.procs import Service
from tests.kit.publisher_rig import http_config, run_folder
from tests.kit.source import Source
from tests.kit.store_rig import STORE_CONFIG

STEP_MS, PAUSE_MS = 60_000, 1_000
MACHINES = ("m01", "m02")
POINTS = (
    "consumer.taken", "consumer.before_commit", "reduce.saving", "consumer.after_commit",
    "consumer.before_receipt", "reduce.settling",
)  # fmt: skip
"""Where an output with ``reduce:`` may be killed."""


def reduced(config: dict[str, Any], *, hold_ms: int = 65_000, **options: Any) -> dict[str, Any]:
    """An output's configuration (publisher_rig) with ``reduce:``, as rendered."""
    given = {"step_ms": STEP_MS, "max_size_bytes": 2**28, "max_age_ms": 30 * 86_400_000}
    config["output"]["reduce"] = {**given, **options}
    group = {"name": "db500", "hold_ms": hold_ms, "counters": {"ciclos": 2**32}, "wide": []}
    config["plcs"] = [
        {"id": f"p{i}", "locatario": "acme", "host": "10.0.0.1", "heartbeat_s": 10.0,
         "groups": [group]} for i in (1, 2)
    ]  # fmt: skip
    return config


class Plant:
    """The store and two PLCs of two machines, whose messages come by turns."""

    def __init__(self, run: Path, output: str) -> None:
        self.run = run
        self.output = output
        self.sources = [Source(run, f"p{i}") for i in (1, 2)]
        self.start = now_ms() // STEP_MS * STEP_MS - 7 * 86_400_000
        self.raw: dict[tuple[str, int, int], dict[str, Any]] = {}
        """(plc, epoch, seq) → message."""
        self._ticks = {s.plc: 0 for s in self.sources}

    def store(self) -> dict[str, Any]:
        output = {"name": self.output, "locatarios": None, "from": "oldest", "strict": True}
        return {
            "process": "store_forward", "folder": "store_forward", "item": "", "site": "planta-sp",
            "locatario": "acme", "runtime": str(self.run), "state": str(self.run),
            "store": STORE_CONFIG, "outputs": [output],
            "plcs": [{"id": s.plc, "locatario": "acme"} for s in self.sources],
        }  # fmt: skip

    def feed(self, count: int, *, pause_ms: int = PAUSE_MS) -> None:
        """So many messages of each PLC."""
        for _ in range(count):
            for source in self.sources:
                n = self._ticks[source.plc] = self._ticks[source.plc] + 1
                self._publish(source, n, pause_ms)
        for source in self.sources:
            source.turn()

    def _publish(self, source: Source, n: int, pause_ms: int) -> None:
        def make(epoch: int, seq: int) -> bytes:
            message = {
                "v": 1, "site": "planta-sp", "locatario_id": "acme", "plc_id": source.plc,
                "ip": "10.0.0.1", "db": 500, "group": "db500", "measurement": "s7_db1",
                "machine": MACHINES[n % 2], "ts": self.start + n * pause_ms, "epoch": epoch,
                "seq": seq, "quality": "good", "latency_ms": 2.0,
                "values": {"n": n, "ciclos": n, "rodando": n % 6 < 2, "estado": f"e{n % 4}"},
            }  # fmt: skip
            self.raw[source.plc, epoch, seq] = message
            return orjson.dumps(message)

        source.publish(make, self.start + n * pause_ms)

    def finish(self) -> None:
        """Ends every step that was fed: a message of each machine an hour later."""
        self.fed = dict(self.raw)
        for source in self.sources:
            self._ticks[source.plc] += 3_600 + self._ticks[source.plc] % 2
        self.feed(2)
        for source in self.sources:
            source.drain()

    def close(self) -> None:
        for source in self.sources:
            source.close()


@contextmanager
def plant(output: str) -> Iterator[Plant]:
    with run_folder() as run:
        it = Plant(run, output)
        try:
            yield it
        finally:
            it.close()


class Judge:
    """What arrived, by identity: every raw message in exactly one, repeats equal to the byte."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, int, int], bytes] = {}
        self.repeats = 0
        self._order: dict[str, tuple[int, int]] = {}

    def take(self, body: bytes) -> None:
        message = orjson.loads(body)
        key = (message["plc_id"], message["epoch"], message["seq"])
        if key in self.first:
            self.repeats += 1
            assert self.first[key] == body, f"{key} came again as something else"
            return
        self.first[key] = body
        before = self._order.get(key[0])
        if before is not None:
            assert key[1:] == (before[0], before[1] + 1), f"{key} behind {before}"
        else:
            assert key[2] == 1, f"the first of {key[0]} is {key}"
        self._order[key[0]] = key[1:]

    def missing(self, raw: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        """Those of these that are in no message."""
        have = {key for key, _ in self._owners()}
        return sorted(key for key in raw if key not in have)

    def covered(self, raw: Iterable[tuple[str, int, int]]) -> bool:
        """Whether all of these are in some message."""
        return not self.missing(raw)

    def _owners(self) -> Iterator[tuple[tuple[str, int, int], dict[str, Any]]]:
        for body in list(self.first.values()):
            m = orjson.loads(body)
            for epoch, first, last in m["raw"]:
                yield from (((m["plc_id"], epoch, seq), m) for seq in range(first, last + 1))

    def check(self, fed: dict[tuple[str, int, int], dict[str, Any]]) -> None:
        """Of what was fed nothing is missing or twice, and the arithmetic is right."""
        owners: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
        for key, m in self._owners():
            # A range holds the other machine's numbers, too.
            if key in fed and fed[key]["machine"] == m["machine"]:
                owners[key].append(m)
        missing, twice = fed.keys() - owners.keys(), [k for k, m in owners.items() if len(m) > 1]
        assert not missing, f"{len(missing)} missing: {sorted(missing)[:3]}"
        assert not twice, f"{len(twice)} in several: {sorted(twice)[:3]}"
        grown: dict[tuple[str, str], int] = defaultdict(int)
        members: dict[int, list[dict[str, Any]]] = defaultdict(list)
        sums: dict[int, dict[str, Any]] = {}
        for key, (m,) in owners.items():
            members[id(m)].append(fed[key])
            sums[id(m)] = m
        for of, raw in members.items():
            m, ts = sums[of], [r["ts"] for r in raw]
            assert m["count"] == len(raw)
            assert all(m["ts"] <= t < m["ts"] + STEP_MS for t in ts), f"{m['ts']} holds {ts}"
            last = max(raw, key=lambda r: r["seq"])["values"]
            assert m["values"]["n_last"] == last["n"]
            assert m["values"]["estado_last"] == last["estado"]
            grown[m["plc_id"], m["machine"]] += m["values"]["ciclos_inc"]
        for (plc, machine), inc in grown.items():
            n = [r["values"]["n"] for k, r in fed.items() if (k[0], r["machine"]) == (plc, machine)]
            assert inc == max(n) - min(n), f"{plc} {machine} has grown by {inc}"


class Web:
    """An HTTP destination that is away, refuses or hangs up as it likes."""

    def __init__(self, chance: random.Random, faults: float) -> None:
        self.judge = Judge()
        self.problem: AssertionError | None = None
        self.messages: list[dict[str, Any]] = []
        """All that was answered with success."""
        self._chance, self._faults = chance, faults
        self.is_away = False
        self.sink = HttpSink()
        self.sink.answer = self._answer

    def config(self, run: Path, **options: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.sink.port}/"
        return reduced(http_config(run, url, timeout=2.0, batch=20), **options)

    def _answer(self, post: Post) -> Answer:
        draw = self._chance.random()
        if self.is_away or draw < self._faults:
            return 503, {}, b"busy"
        messages = orjson.loads(post.body)
        self.messages += messages
        try:
            for message in messages:
                if "first_seq" not in message:
                    self.judge.take(orjson.dumps(message))
        except AssertionError as e:
            self.problem = e
        # Taken, and the answer is lost: all of it comes again.
        return (0, {}, b"") if draw < 2 * self._faults else (204, {}, b"")

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()

    def told(self, plc: str) -> set[int]:
        """Numbers of a PLC's reduced messages that arrived, or that a gap message names."""
        found: set[int] = set()
        for m in self.messages:
            if m["plc_id"] == plc:
                first: int = m["first_seq"] if "first_seq" in m else m["seq"]
                found |= set(range(first, m.get("last_seq", first) + 1))
        return found

    def wait(self, world: Plant, why: Callable[[], str]) -> None:
        """Until all that was fed has arrived, and judges it."""

        def missing() -> str:
            found = self.judge.missing(world.fed)
            return f"{len(found)} of {len(world.fed)} missing: {found[:3]}\n{why()}"

        until(lambda: self.problem or self.judge.covered(world.fed), 60, missing)
        if self.problem is not None:
            raise self.problem
        self.judge.check(world.fed)


class Kept:
    """A client whose session its broker keeps: what comes while it is away comes when it is back.
    Its CleanSession is false, as a receiver's ought to be.
    """

    def __init__(self, port: int) -> None:
        self.bodies: deque[bytes] = deque()
        ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, "kept", clean_session=False, protocol=paho.MQTTv311
        )
        self._client.on_message = lambda _c, _u, m: self.bodies.append(bytes(m.payload))
        self._client.on_connect = lambda c, *_: c.subscribe("plc/+/+", 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10), "no subscription"

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def chaos(kills: int, seed: int) -> str:
    """An output killed at every place and time, its store beside it, its destination away at
    times; what came of it, in words. Raises AssertionError.
    """
    chance = random.Random(seed)
    with Web(chance, 0.1) as web, plant("web") as world:
        store = Service(world.store())
        config = web.config(world.run)
        try:
            for n in range(kills):
                point = f"{POINTS[n % len(POINTS)]}:{chance.randint(1, 6)}"
                doomed = Service(config, {"PLC_EDGE_FAILPOINT": point})
                web.is_away = chance.random() < 0.25
                end_s = time.monotonic() + chance.uniform(0.5, 4)
                while doomed.process.poll() is None and time.monotonic() < end_s:
                    world.feed(chance.randint(1, 30))
                doomed.end()
                if chance.random() < 0.3:
                    store.kill()
                    world.feed(chance.randint(1, 50))
                    store = Service(world.store())
            web.is_away = False
            world.finish()
            last = Service(config)
            try:
                web.wait(world, last.stderr)
                assert last.terminate() == 0
            finally:
                last.end()
        finally:
            store.end()
    raw, sums = len(world.fed), len(web.judge.first)
    return f"{kills} kills: {raw} raw messages in {sums} reduced ones, {web.judge.repeats} repeats"
