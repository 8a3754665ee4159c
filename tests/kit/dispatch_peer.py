"""store_forward as one output sees it: durable cursor, window, sessions, receipts, dead letters.

Runs in a thread over the real bus. ``add`` makes rows; ``restart`` forgets all but the durable
cursor, as a killed store does.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import zmq

from bus.frames import GAP_ROW, SAMPLE_ROW, Deliver, Heartbeat, Ready, Receipt
from bus.sockets import Bus
from services.runtime.clock import now_ms
from tests.kit.common import until

BATCH_ROWS = 100


def body(
    plc: str, epoch: int, seq: int, ts_ms: int, locatario: str = "acme", pad: int = 0
) -> bytes:
    """A message as a reader makes it."""
    values: dict[str, Any] = {"n": seq, "temperatura": 81.5, "rodando": True}
    if pad:
        values["pad"] = "x" * pad
    return orjson.dumps(
        {
            "v": 1,
            "site": "planta-sp",
            "locatario_id": locatario,
            "plc_id": plc,
            "ip": "192.168.0.10",
            "db": 500,
            "group": "db500",
            "measurement": "s7_db1",
            "ts": ts_ms,
            "epoch": epoch,
            "seq": seq,
            "quality": "good",
            "latency_ms": 2.41,
            "values": values,
        }
    )


class DispatchPeer:
    """Feeds the output ``name``. All public attributes may be read while it runs."""

    def __init__(self, runtime: Path, name: str) -> None:
        runtime.mkdir(exist_ok=True)
        self._bus = Bus(runtime)
        self._dispatch = self._bus.bind("dispatch", name)
        self._receipts = self._bus.bind("receipts")
        self._name = name
        self.rows: list[tuple[int, int, str, str, int, int, int, bytes]] = []
        self.settled = 0
        """Durable cursor: rows settled, from the first."""
        self.refused: dict[int, str] = {}
        self.sessions: list[int] = []
        self.most_unreceipted = 0
        self.restarts = 0
        self.epoch = now_ms()
        self._sent = 0
        self._session = 0
        self._window = 0
        self._beats: list[Heartbeat] = []
        self._seqs: Counter[str] = Counter()
        """PLC -> its last number."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._forget = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(
        self,
        count: int,
        plc: str = "prensa-01",
        locatario: str = "acme",
        pad: int = 0,
        kind: int = SAMPLE_ROW,
        bodies: list[bytes] | None = None,
    ) -> None:
        """More rows of one PLC, timed now."""
        with self._lock:
            for i in range(count):
                self._seqs[plc] += 1
                seq = self._seqs[plc]
                ts_ms = now_ms()
                data = bodies[i] if bodies else body(plc, self.epoch, seq, ts_ms, locatario, pad)
                if kind == GAP_ROW and not bodies:
                    gap = {"v": 1, "plc_id": plc, "ts": ts_ms, "epoch": self.epoch, "seq": seq}
                    data = orjson.dumps({**gap, "first_seq": seq, "count": 1, "reason": "full"})
                position = len(self.rows) + 1
                self.rows.append((position, kind, plc, locatario, ts_ms, self.epoch, seq, data))

    def beat(self, beat: Heartbeat) -> None:
        """Hands on a heartbeat."""
        self._beats.append(beat)

    def restart(self) -> None:
        """As if the store had been killed: knows no session, starts from the durable cursor."""
        self._forget = True
        self.restarts += 1

    @property
    def done(self) -> bool:
        """All rows settled."""
        return self.settled >= len(self.rows)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._receipts.socket.poll(2, zmq.POLLIN)
            while (frame := self._receipts.receive()) is not None:
                if isinstance(frame, Ready):
                    self._on_ready(frame)
                elif isinstance(frame, Receipt) and frame.session == self._session:
                    # After a restart it may name rows that were given before: they come again.
                    self.settled = max(self.settled, min(frame.position, self._sent))
                    self.refused.update(dict(frame.refused))
            if self._forget:
                self._forget = False
                self._session = 0
            self._give()
            while self._beats:
                self._dispatch.send(self._beats.pop(0))

    def _on_ready(self, ready: Ready) -> None:
        self._window = ready.window
        if ready.session != self._session:
            self._session = ready.session
            self.sessions.append(ready.session)
            self._sent = self.settled

    def _give(self) -> None:
        while self._session and not self._stop.is_set():
            room = self._window - (self._sent - self.settled)
            rows = self.rows[self._sent : self._sent + min(room, BATCH_ROWS)]
            if not rows or not self._dispatch.send(
                Deliver(self._name, self._session, "live", rows)
            ):
                return
            self._sent += len(rows)
            self.most_unreceipted = max(self.most_unreceipted, self._sent - self.settled)

    def wait_done(self, timeout_s: float) -> None:
        """Returns when all rows are settled."""
        until(lambda: self.done, timeout_s, lambda: f"{self.settled} of {len(self.rows)} settled")

    def close(self) -> None:
        """Ends the thread and the sockets."""
        self._stop.set()
        self._thread.join(5)
        self._bus.close()

    def __enter__(self) -> DispatchPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check(peer: DispatchPeer, seen: list[bytes], window: int, restarts: int) -> None:
    """The oracle of an output: every row arrived or is a dead letter, first arrivals in order,
    repeats within ``window`` × ``restarts``, nothing else arrived.
    """
    rows = {(r[2], r[5], r[6]): r for r in peer.rows}
    order: dict[str, int] = {}
    first: set[tuple[str, int, int]] = set()
    repeats = 0
    for payload in seen:
        message = orjson.loads(payload)
        key = (message["plc_id"], message["epoch"], message["seq"])
        assert rows[key][7] == payload, f"{key} arrived changed"
        if key in first:
            repeats += 1
            continue
        first.add(key)
        assert message["seq"] > order.get(key[0], 0), f"{key} after seq {order[key[0]]}"
        order[key[0]] = message["seq"]
    refused = {(r[2], r[5], r[6]) for r in peer.rows if r[0] in peer.refused}
    missing = set(rows) - first - refused
    assert not missing, f"{len(missing)} lost: {sorted(missing)[:5]}"
    assert repeats <= window * restarts, f"{repeats} repeats, {window} × {restarts} allowed"
