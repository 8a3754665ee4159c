"""One connection to one PLC, made by ``handshake``: it reads. There is no write in it.

Requests go out as many at a time as the PLC granted; replies find their telegram by PDU reference.
After a timeout or anything unexpected the socket is dropped: a late reply must never be taken for
the next one.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from services.runtime.errors import PlcUnavailable
from services.s7 import telegram as t
from services.s7.handshake import connect, network_error
from services.s7.plan import Telegram

# Asked for; CPUs grant 1 to 8, library servers what is asked.
JOBS_ASKED = 16
# On a LAN the next reply is nearly there: waiting for it here saves a turn of the process's loop.
LINGER_MS = 1
# But the process has other things to do, however closely replies follow.
TURN_S = 0.005
_RECEIVE_BYTES = 65_536
_TPKT_BYTES = 4
_READ_REPLY_BYTES = t.TPKT_COTP_BYTES + t.REPLY_HEAD_BYTES
_NOTHING = (None, None, 0.0)


class Answer:
    """What became of one scan's telegrams; filled while replies come in."""

    __slots__ = ("codes", "done_s", "failed", "image", "left", "sent_s", "telegrams", "urgency")

    def __init__(self, telegrams: list[Telegram], image: bytearray, urgency: float) -> None:
        self.telegrams = telegrams
        self.image = image
        self.urgency = urgency
        """Who is due first sends first, telegram by telegram (monotonic seconds)."""
        self.left = len(telegrams)
        self.sent_s = 0.0
        """When the first request left, monotonic."""
        self.done_s = 0.0
        """When the last reply was here."""
        self.codes: list[tuple[Telegram, list[int]]] = []
        """Return codes of telegrams in which an item was refused."""
        self.failed: t.ReplyError | None = None
        """The PLC refused a whole request."""


class Session:
    """A connection; raises PlcUnavailable from every method once something is wrong, and is then
    closed: make a new one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tsaps: tuple[int, int],
        *,
        pdu_bytes: int = 960,
        jobs: int = JOBS_ASKED,
        timeout_s: float = 2.0,
    ) -> None:
        self.host = host
        self.port = port
        self.timeout_s = timeout_s
        self.reads = 0
        self._parts = bytearray()
        self._waiting: list[tuple[Answer, deque[Telegram]]] = []
        self._in_flight: dict[int, tuple[Answer | None, Telegram | None, float]] = {}
        # Not from 1 on each connection: a gateway (MPI, serial) may hand a late reply to the next
        # connection, where it must find nothing.
        self._reference = random.randrange(0xFFFE)
        self._on_state: Callable[[int | None], None] | None = None
        self._state_waits = False
        opened = connect(host, port, tsaps, pdu_bytes, jobs, timeout_s)
        self.socket = opened.socket
        self.jobs, self.pdu_bytes = opened.jobs, opened.pdu_bytes
        self._buffer = opened.rest
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def fileno(self) -> int:
        """For the process's poller."""
        return self.socket.fileno()

    def close(self) -> None:
        """Drops the connection."""
        self.socket.close()

    # -- reading -------------------------------------------------------------------------

    def submit(self, answer: Answer) -> None:
        """Queues a scan's telegrams and sends what may go out now."""
        self._waiting.append((answer, deque(answer.telegrams)))
        if len(self._waiting) > 1:
            self._waiting.sort(key=lambda pair: pair[0].urgency)
        self._fill()

    def ask_state(self, then: Callable[[int | None], None]) -> None:
        """Asks the CPU's operating state for ``then``: 8 RUN, 4 STOP, None refused.

        It is a job like any other: it waits for its turn, and takes the next. Asking again before
        the answer is there does nothing.
        """
        if self._on_state is None:
            self._on_state = then
            self._state_waits = True
            self._fill()

    def _put(self, data: bytearray) -> None:
        try:
            sent = self.socket.send(data)
        except OSError as e:
            raise self._broken(network_error(e, self.host, self.port)) from None
        if sent != len(data):
            # A few kB do not fit into the send buffer: the PLC has stopped reading.
            raise self._broken(PlcUnavailable("timeout", f"{self.host}: takes no more requests"))

    def _fill(self) -> None:
        """Sends until as many are in flight as the PLC granted; who is due first goes first."""
        free = self.jobs - len(self._in_flight)
        if free <= 0 or not (self._waiting or self._state_waits):
            return
        now_s = time.monotonic()
        batch = bytearray()
        if self._state_waits:
            self._state_waits = False
            self._enter(batch, t.szl_request(0, 0x0424), None, None, now_s)
            free -= 1
        while free > 0 and self._waiting:
            answer, queue = self._waiting[0]
            telegram = queue.popleft()
            if not queue:
                self._waiting.pop(0)
            if not answer.sent_s:
                answer.sent_s = now_s
            self._enter(batch, telegram.data, answer, telegram, now_s)
            free -= 1
        self._put(batch)

    def _enter(
        self,
        batch: bytearray,
        data: bytes,
        answer: Answer | None,
        telegram: Telegram | None,
        now_s: float,
    ) -> None:
        """Puts a request into the batch, under a reference that nothing in flight has.

        References go round through all 65,534: a reply that comes twice, or long after, finds
        nothing.
        """
        reference = self._reference % 0xFFFE + 1
        while reference in self._in_flight:
            reference = reference % 0xFFFE + 1
        self._reference = reference
        self._in_flight[reference] = (answer, telegram, now_s)
        at = len(batch) + t.REFERENCE_AT
        batch += data
        batch[at] = reference >> 8
        batch[at + 1] = reference & 0xFF

    def receive(self, wait_ms: float = 0) -> list[Answer]:
        """Takes what comes in; the scans that are now complete, in that order.

        Waits LINGER_MS for all that is in flight, then up to ``wait_ms`` more for any of it. Goes
        on while replies follow closely, for TURN_S.
        """
        done: list[Answer] = []
        end_s = time.monotonic() + TURN_S
        whole = self._wake_for_all()
        ready = self._poll.poll(LINGER_MS)
        if whole:
            self._wake_at(1)
        # Late, or shorter than good replies are: then any of it will do.
        ready = ready or self._poll.poll(wait_ms)
        while ready:
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return done
            except OSError as e:
                raise self._broken(network_error(e, self.host, self.port)) from None
            if not data:
                message = f"{self.host}:{self.port}: the PLC closed the connection"
                raise self._broken(PlcUnavailable("reset", message))
            try:
                self._take(self._buffer + data if self._buffer else data, done)
                self._fill()
            except t.ItemsCut as e:
                error = PlcUnavailable("items_cut", f"{self.host}: {e}", items=e.items)
                raise self._broken(error) from None
            except t.ProtocolError as e:
                raise self._broken(PlcUnavailable("protocol", f"{self.host}: {e}")) from None
            if not self._in_flight or time.monotonic() > end_s:
                break
            ready = self._poll.poll(LINGER_MS)
        return done

    def _wake_for_all(self) -> bool:
        """Has the kernel wake us once for all that is in flight, not once a reply: nine replies
        on loopback then take 32 µs of CPU, not 75. Not while requests wait for their turn: each
        reply lets one go.
        """
        if self._waiting or len(self._in_flight) < 2:
            return False
        in_flight = self._in_flight.values()
        bytes_left = sum(tg.good_reply.size_bytes for _, tg, _ in in_flight if tg is not None)
        self._wake_at(max(1, bytes_left - len(self._buffer)))
        return True

    def _wake_at(self, size_bytes: int) -> None:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
        except OSError as e:
            raise self._broken(network_error(e, self.host, self.port)) from None

    def _take(self, data: bytes, done: list[Answer]) -> None:
        """Takes every whole packet of ``data``; keeps the rest for the next time."""
        at, end = 0, len(data)
        while end - at >= _TPKT_BYTES:
            size = data[at + 2] << 8 | data[at + 3]
            if data[at] != 3 or size < t.TPKT_COTP_BYTES:
                raise t.ProtocolError(f"not a TPKT: {data[at : at + 4].hex()}")
            if at + size > end:
                break
            if size < _READ_REPLY_BYTES or self._parts or not self._take_good(data, at, done):
                self._take_packet(data[at + _TPKT_BYTES : at + size], done)
            at += size
        self._buffer = data[at:]

    def _take_good(self, data: bytes, at: int, done: list[Answer]) -> bool:
        """The short way for what nearly every packet is: a good reply to a read in flight."""
        reference = data[at + t.REFERENCE_AT] << 8 | data[at + t.REFERENCE_AT + 1]
        answer, telegram, _ = self._in_flight.get(reference, _NOTHING)
        if answer is None or telegram is None:
            return False
        if not telegram.good_reply.take(data, at, answer.image):
            return False
        del self._in_flight[reference]
        self._count(answer, done)
        return True

    def _count(self, answer: Answer, done: list[Answer]) -> None:
        self.reads += 1
        answer.left -= 1
        if not answer.left:
            answer.done_s = time.monotonic()
            done.append(answer)

    def _take_packet(self, cotp: bytes, done: list[Answer]) -> None:
        if cotp[1] & 0xF0 == 0x80:
            raise t.ProtocolError("the PLC asked to disconnect")
        if cotp[1] != 0xF0 or cotp[0] != 2:
            raise t.ProtocolError(f"unexpected COTP packet 0x{cotp[1]:02x}")
        pdu = cotp[3:]
        if not cotp[2] & 0x80 or self._parts:
            # A CPU with small COTP packets sends a PDU in parts; the last one has the EOT bit.
            self._parts += pdu
            if len(self._parts) > _RECEIVE_BYTES:
                raise t.ProtocolError("a PDU without an end")
            if not cotp[2] & 0x80:
                return
            pdu = bytes(self._parts)
            self._parts.clear()
        if not pdu:  # a sign of life
            return
        found = self._in_flight.pop(t.reference_of(pdu), None)
        if found is None:
            raise t.ProtocolError("reply to a telegram that is not in flight")
        answer, telegram, _ = found
        if answer is None or telegram is None:
            then, self._on_state = self._on_state, None
            if then is not None:
                then(t.parse_szl_state(pdu))
            return
        try:
            codes = t.parse_read(pdu, telegram.items, answer.image, telegram.places)
        except t.ReplyError as e:
            answer.failed = e
            codes = [0] * len(telegram.items)
        if codes is not None:
            answer.codes.append((telegram, codes))
        self._count(answer, done)

    def check_timeout(self) -> None:
        """Raises PlcUnavailable when a request has waited longer than the timeout.

        Its field ``to_state`` says that it was the question for the CPU's state.
        """
        if not self._in_flight:
            return
        answer, _, oldest_s = next(iter(self._in_flight.values()))
        if time.monotonic() - oldest_s > self.timeout_s:
            message = f"{self.host}:{self.port}: no answer within {self.timeout_s:g} s"
            error = PlcUnavailable("timeout", message, to_state=answer is None)
            raise self._broken(error)

    def _broken(self, error: PlcUnavailable) -> PlcUnavailable:
        self.close()
        return error

    def read_state(self) -> int | None:
        """Asks the CPU's operating state and waits for it, as ``ask_state`` gives it: for one-shot
        tools.
        """
        told: list[int | None] = []
        self.ask_state(told.append)
        while not told:
            self.receive(self.timeout_s * 1_000)
            if not told:
                self.check_timeout()
        return told[0]

    def read(self, telegrams: list[Telegram], image_bytes: int) -> Answer:
        """Reads once and waits for it: for one-shot tools."""
        answer = Answer(telegrams, bytearray(image_bytes), 0.0)
        self.submit(answer)
        while answer.left:
            self.receive(self.timeout_s * 1_000)
            if answer.left:
                self.check_timeout()
        return answer
