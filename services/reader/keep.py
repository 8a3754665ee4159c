"""The reader's end of the keep wire: number, keep, send, and send again until acknowledged.

ZeroMQ loses what sits in the pipe of a killed peer (8,596 of 20,000 messages over three receiver
kills), so a row leaves the ring only when the store says that it has committed it. It is sent again
from the first unacknowledged one when another store answers, when the store says that something is
missing, or after silence (1 s, doubling: a fixed 300 ms made 22,829 repeats for 69,658 rows when
commits stalled).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bus import topology
from bus.frames import Ack, Hello, Sample, pack, unpack
from services.reader.ring import open_ring
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.runtime.process import Process

SILENCE_S, SILENCE_MAX_S = 1.0, 30.0
# A wake-up, or a frame taken alone, costs 100 µs: between two scans caches go cold. So while all is
# well acknowledgements are taken by the second or by the dozen, and often only in need.
TICK_S, HURRY_S = 1.0, 0.1
ACKS_AT_ROWS = 64
# Hello again after 0.1 s, doubling up to SILENCE_S: the first one is often lost, for the answer's
# subscription takes a few ms to be made. A fast reader's ring (16 MB) overflows in a second.
HELLO_S = 0.1
DRAIN_S = 2.0


class KeepClient:
    """One PLC's outgoing sequence. ``publish`` never waits, whatever the store does."""

    def __init__(self, process: Process, plc: str, locatario: str) -> None:
        self._process = process
        self._plc = plc
        self._locatario = locatario
        folder = process.runtime / "ring"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._ring, problem = open_ring(folder / f"{plc}.ring")
        if problem:
            text = "no room for the ring: what is unacknowledged lives in memory only"
            process.event("error", "ring_in_memory", text, problem=problem)
        self._greeted = False
        """The store has answered our Hello: the epoch is settled and rows may be sent."""
        self._greeted_once = False
        self._sent = self._ring.first_seq - 1
        self._store_boot = 0
        self._silence_s = SILENCE_S
        self._heard_s = time.monotonic()
        """When the store last said something, or the oldest row that waits was sent."""
        self._listening = False
        """Acknowledgements wake this process: something waits to be sent, or to be taken for the
        first time after that."""
        self._hello_s = 0.0
        self._hello_wait_s = HELLO_S
        self._gauge = process.stats.gauge("plc_edge_ring_pending", plc=plc)
        self._lost = process.stats.counter("plc_edge_ring_overwritten_total", plc=plc)
        self._resent = process.stats.counter("plc_edge_keep_resends_total", plc=plc)
        # What the file held when it was opened; later rows were read by this process.
        self._recovered_seq = self._ring.last_seq
        if not self._ring.epoch:
            # Provisional: the store may know a later one (the clock has stepped back).
            self._ring.begin(now_ms())

    def open(self) -> None:
        """Connects and registers with the process's loop."""
        self._keep = self._process.bus.connect("keep")
        self._acks = self._process.bus.connect("acks")
        self._acks.subscribe(topology.topic("ack", self._plc))
        self._timer = self._process.at(0.0, self._tick)

    @property
    def pending(self) -> int:
        """Rows that the store has not acknowledged, by all that it has said till now."""
        self._take_acks()
        return len(self._ring)

    @property
    def epoch(self) -> int:
        """The current sequence's beginning, Unix ms."""
        return self._ring.epoch

    def publish(self, ts_ms: int, make_body: Callable[[int, int], bytes]) -> bytes:
        """Numbers one message, keeps it, sends it if it may go. ``make_body(epoch, seq)`` gives the
        JSON, which is returned.
        """
        ring = self._ring
        if len(ring) >= ACKS_AT_ROWS:
            self._take_acks()
        if not ring:
            self._heard_s = time.monotonic()
        seq, epoch = ring.last_seq + 1, ring.epoch
        body = make_body(epoch, seq)
        ring.append(seq, pack(Sample(self._plc, self._locatario, epoch, seq, ts_ms, body)))
        hit("reader.after_append")
        self._pump()
        return body

    def _pump(self) -> None:
        """Sends what may go; listens to the store where something must wait."""
        if self._greeted:
            self._send()
        if not self._listening and self._in_need:
            self._listening = True
            self._process.on_readable(self._acks, self._receive)
            self._timer.cancel()
            self._timer = self._process.at(time.monotonic() + HURRY_S, self._tick)

    @property
    def _in_need(self) -> bool:
        return not self._greeted or self._sent < self._ring.last_seq

    def _send(self) -> None:
        ring = self._ring
        limit = min(ring.last_seq, ring.first_seq - 1 + topology.KEEP_WINDOW)
        # The ring has overwritten what was next, or a bit has flipped in it: say that there is
        # nothing older, and the store records a gap.
        torn = self._sent < ring.first_seq - 1
        at = max(self._sent, ring.first_seq - 1)
        while at < limit:
            at += 1
            frame = ring.frame(at)
            if frame is None:
                if not torn and at > ring.first_seq:
                    return  # what lies before it must be safe first
                torn = True
                continue
            if torn:
                frame = _oldest(frame)
            if not self._keep.send_packed(frame):
                return
            torn = False
            self._sent = at
            hit("reader.after_send")

    def _receive(self) -> None:
        while (frame := self._acks.receive()) is not None:
            if isinstance(frame, Ack) and frame.plc == self._plc:
                self._take(frame)
        self._pump()
        if not self._in_need:
            self._listening = False
            self._process.forget(self._acks)

    def _take_acks(self) -> None:
        """Until nothing waits: then there is none left to ask for."""
        while self._ring and (frame := self._acks.receive()) is not None:
            if isinstance(frame, Ack) and frame.plc == self._plc:
                self._take(frame)

    def _take(self, ack: Ack) -> None:
        self._heard_s = time.monotonic()
        self._silence_s = SILENCE_S
        if ack.why == "hello":
            # Of several answers of one store the first counts: a later one would send again what
            # is on its way.
            is_news = not self._greeted or ack.store_boot != self._store_boot
            if ack.reader_boot == self._process.boot and is_news:
                self._settle(ack)
            return
        if not self._greeted:
            return
        if ack.store_boot != self._store_boot:
            # Another store: what the old one had not committed is gone with its pipe.
            self._greeted = False
            self._hello_s = 0.0
            return
        if ack.epoch != self._ring.epoch:
            return
        self._ring.release(ack.seq)
        if ack.why == "nak":
            # It misses what follows ack.seq; where we have nothing so old, _pump says so.
            self._resent.inc(max(0, self._sent - ack.seq))
            self._sent = ack.seq
        self._sent = max(self._sent, ack.seq)

    def _settle(self, ack: Ack) -> None:
        """The store's answer to Hello: where it stands."""
        ring = self._ring
        if ack.epoch == ring.epoch:
            if not self._greeted_once and ack.seq > self._recovered_seq:
                # Our ring is older than what the store has (it was damaged): never number
                # anything twice. Of what it held the store has all.
                ring.release(self._recovered_seq)
                self._restamp(max(now_ms(), ack.epoch + 1))
            else:
                ring.release(ack.seq)
        elif ack.epoch > ring.epoch:
            self._restamp(max(now_ms(), ack.epoch + 1))
        self._store_boot = ack.store_boot
        self._greeted = self._greeted_once = True
        self._hello_wait_s = HELLO_S
        first_missing = ack.seq + 1 if ack.epoch == ring.epoch else 1
        self._resent.inc(max(0, self._sent - first_missing + 1))
        self._sent = first_missing - 1

    def _restamp(self, epoch: int) -> None:
        """Gives every row an epoch later than any the store knows: a clock that stepped back must
        not make new data look old.
        """
        ring = self._ring
        kept = [ring.frame(s) for s in range(ring.first_seq, ring.last_seq + 1)]
        frames = [unpack(frame) for frame in kept if frame is not None]
        old = ring.epoch
        ring.begin(epoch)
        for seq, frame in enumerate(frames, 1):
            assert isinstance(frame, Sample)
            # The reader writes both into the static head of the JSON, before any value.
            was = b'"epoch":%d,"seq":%d,' % (old, frame.seq)
            frame.body = frame.body.replace(was, b'"epoch":%d,"seq":%d,' % (epoch, seq), 1)
            frame.epoch, frame.seq = epoch, seq
            ring.append(seq, pack(frame))

    def _tick(self) -> None:
        self._look_after()
        self._pump()
        wait_s = HURRY_S if self._listening else TICK_S
        self._timer.cancel()
        self._timer = self._process.at(time.monotonic() + wait_s, self._tick)

    def _look_after(self) -> None:
        """Counts; greets the store, or asks it again where it has been silent for too long."""
        self._take_acks()
        now_s = time.monotonic()
        self._gauge.set(self.pending)
        self._lost.value = self._ring.overwritten
        if not self._greeted:
            if now_s - self._hello_s >= self._hello_wait_s and self._keep.send(
                Hello(self._plc, self._locatario, self._process.boot)
            ):
                self._hello_s = now_s
                self._hello_wait_s = min(SILENCE_S, 2 * self._hello_wait_s)
            return
        waiting = self._sent >= self._ring.first_seq
        if waiting and now_s - self._heard_s > self._silence_s:
            self._silence_s = min(SILENCE_MAX_S, 2 * self._silence_s)
            self._heard_s = now_s
            # Perhaps another store: ask where it stands before sending anything again.
            self._greeted = False
            self._hello_s = 0.0
        elif not waiting:
            self._heard_s = now_s

    def close(self) -> None:
        """Waits briefly for the acknowledgement of what is sent; the ring keeps the rest."""
        deadline_s = time.monotonic() + DRAIN_S
        while self.pending and self._greeted and time.monotonic() < deadline_s:
            self._pump()
            self._acks.socket.poll(20)
            self._receive()
        self._ring.close()


def _oldest(packed: bytes) -> bytes:
    """The same frame, saying that there is nothing older."""
    frame = unpack(packed)
    assert isinstance(frame, Sample)
    frame.oldest = True
    return pack(frame)
