"""A mirror in trouble: what its target may still see, and how gently it tries again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest

from bus.topology import LIVE_MAX_AGE_MS
from services.mirror.guard import Guard, WriteRefused
from services.mirror.target import Target
from services.runtime.errors import PlcUnavailable
from tests.kit.common import until
from tests.kit.fake_plc import FakePlc
from tests.kit.mirror_rig import MirrorRig
from tests.kit.proxy import Proxy

SIZE = 50
WATCHDOG = {"offset": SIZE, "alive": 1, "stale": 0}
ROOM = {600: (0, SIZE + 1)}
TSAPS = {"local_tsap": 0x0100, "remote_tsap": 0x0201}


def said(rig: MirrorRig, code: str) -> Callable[[], bool]:
    return lambda: rig.service is not None and rig.service.said(code)


def audit(rig: MirrorRig) -> list[str]:
    return [json.loads(line)["what"] for line in rig.audit.splitlines()]


def test_a_refused_write_sends_nothing() -> None:
    block = bytearray(100)
    with FakePlc({600: block}, writable={600: (0, 100)}) as plc:
        guard = Guard(600, [(10, 20), (20, 30)])
        target = Target({"host": "127.0.0.1", "port": plc.port, **TSAPS}, 1.0, guard)
        target.write(12, b"\1" * 18)
        for start, length in ((9, 1), (9, 5), (29, 2), (30, 1), (0, 100), (12, 0)):
            with pytest.raises(WriteRefused):
                target.write(start, b"\2" * length)
        assert [(start, len(data)) for _, start, data in plc.written] == [(12, 18)]
        assert plc.violations == []
        assert guard.refusals == 6
        target.close()


@pytest.mark.timing
def test_the_timeout_is_the_configured_one() -> None:
    guard = Guard(600, [(0, 10)])
    with FakePlc({600: bytearray(10)}, writable={600: (0, 10)}) as plc:
        target = Target({"host": "127.0.0.1", "port": plc.port, **TSAPS}, 0.2, guard)
        plc.write_delay_s = 1.0
        begin_s = time.monotonic()
        with pytest.raises(PlcUnavailable):
            target.write(0, b"\1")
        assert 0.15 < time.monotonic() - begin_s < 0.8
        plc.silent = True
        begin_s = time.monotonic()
        with pytest.raises(PlcUnavailable):
            Target({"host": "127.0.0.1", "port": plc.port, **TSAPS}, 0.2, guard)
        assert 0.15 < time.monotonic() - begin_s < 0.8


def test_a_source_that_never_comes_back_is_told_to_the_target() -> None:
    """The box was restarted and its source is off: "alive" must not stand there for ever."""
    block = bytearray(SIZE + 1)
    image = os.urandom(SIZE)
    with (
        FakePlc({600: block}, writable=ROOM) as plc,
        MirrorRig(plc.port, SIZE, watchdog=WATCHDOG) as rig,
    ):
        rig.send_until(image, lambda: block[SIZE] == 1)
        assert rig.service is not None
        rig.service.process.kill()
        rig.service.process.wait()
        assert block[SIZE] == 1
        rig.start()
        until(lambda: block[SIZE] == 0, 10, rig.explain)
        assert block[:SIZE] == image
        rig.send_until(image, lambda: block[SIZE] == 1)


def test_stale_is_told_when_the_target_can_be_reached_again() -> None:
    block = bytearray(SIZE + 1)
    image = os.urandom(SIZE)
    with (
        FakePlc({600: block}, writable=ROOM) as plc,
        MirrorRig(plc.port, SIZE, watchdog=WATCHDOG) as rig,
    ):
        rig.send_until(image, lambda: block[SIZE] == 1)
        silent_s = time.monotonic()
        plc.down()
        until(said(rig, "mirror_down"), 10, rig.explain)
        # The source has long been silent when the target comes back.
        until(lambda: time.monotonic() - silent_s > 2, 5, "time")
        plc.up()
        until(lambda: block[SIZE] == 0, 30, rig.explain)
        assert block[:SIZE] == image


@pytest.mark.parametrize("quality", ["bad", "good"])
def test_a_target_that_is_away_is_tried_gently(quality: str) -> None:
    """50 scans a second come; the hung target is asked with growing pauses, the log stays short."""
    with (
        FakePlc({600: bytearray(SIZE + 1)}, writable=ROOM) as plc,
        MirrorRig(plc.port, SIZE, watchdog=WATCHDOG, timeout=0.1) as rig,
    ):
        plc.silent = True
        end_s = time.monotonic() + 6
        while time.monotonic() < end_s:
            rig.send(os.urandom(SIZE), quality)
            time.sleep(0.02)
        # At most: 0.35 s, 0.6, 1.1, 2.1, 4.1 … one after the other.
        assert 2 <= plc.connections <= 6
        assert rig.service is not None
        events = [line for line in rig.service.lines if line.get("code", "").startswith("mirror_")]
        assert len(events) <= 3, events
        assert audit(rig) == []


def test_a_target_that_denies_is_tried_gently() -> None:
    with (
        FakePlc({600: bytearray(SIZE)}, writable=ROOM) as plc,
        MirrorRig(plc.port, SIZE) as rig,
    ):
        plc.write_code = 0x03
        end_s = time.monotonic() + 6
        while time.monotonic() < end_s:
            rig.send(os.urandom(SIZE))
            time.sleep(0.02)
        assert 2 <= plc.connections <= 6
        assert audit(rig) == ["start", "stop"]
        plc.write_code = 0xFF
        image = os.urandom(SIZE)
        rig.send_until(image, lambda: plc.blocks[600] == image, timeout_s=20)
        # The block shows it before the mirror has the answer.
        told = ["start", "stop", "start", "full_write"]
        until(lambda: audit(rig) == told, 5, lambda: rig.audit)


def test_a_target_that_does_not_answer_holds_up_nothing() -> None:
    """Nor is what was current when connecting began written when it ends: by then it is old."""
    block = bytearray(SIZE + 1)
    old, new = os.urandom(SIZE), os.urandom(SIZE)
    stale_s = LIVE_MAX_AGE_MS / 1_000 + 1.0
    with (
        FakePlc({600: block}, writable=ROOM) as plc,
        Proxy(plc.port) as proxy,
        MirrorRig(
            proxy.port, SIZE, timeout=20.0, stale_after=stale_s, watchdog={**WATCHDOG, "stale": 7}
        ) as rig,
    ):
        assert rig.service is not None
        proxy.fault = "blackhole"
        rig.send_until(old, lambda: proxy.connections == 1)
        assert rig.service.terminate() == 0, "SIGTERM waits for the target"
        rig.start()
        rig.send_until(old, lambda: proxy.connections == 2)
        # The source's silence is what is tested: its image grows old, and it is not called stale
        # yet when the target answers.
        time.sleep(stale_s - 0.8)
        proxy.fault = None
        until(lambda: plc.written, 10, rig.explain)
        assert plc.written[0][2] == b"\7", "an old image was written before the word that it is"
        rig.send_until(new, lambda: block[:SIZE] == new)
        assert old not in {data for _, _, data in plc.written}


@pytest.mark.parametrize("end", ["bad", "silent"])
def test_a_slow_copy_ends_when_its_source_does(end: str) -> None:
    """Two seconds' worth of telegrams are still to be written when the source goes."""
    size = 400
    block = bytearray(size + 4)
    with (
        FakePlc({600: block}, writable={600: (0, size + 4)}) as plc,
        MirrorRig(
            plc.port, size, consistent_bytes=10, commit={"begin": 400, "end": 402}, stale_after=0.5
        ) as rig,
    ):
        one, two = bytes([1]) * size, bytes([2]) * size
        rig.send_until(one, lambda: block[400:404] == b"\0\1\0\1")
        plc.write_delay_s = 0.05
        rig.send_until(two, lambda: block[0] == 2)
        if end == "bad":
            rig.send_until(two, lambda: "stop" in audit(rig), quality="bad")
        else:
            until(lambda: "stop" in audit(rig), 5, rig.explain)
        count = len(plc.written)
        time.sleep(0.3)  # six more telegrams, were they sent
        assert len(plc.written) <= count + 1
        assert count < 80, "the copy was not cut short"
        assert block[400:402] != block[402:404], "a torn copy must show"
        rig.send_until(two, lambda: bytes(block[:size]) == two and block[400:402] == block[402:404])
        assert plc.violations == []


def test_sigterm_in_a_slow_copy() -> None:
    """It ends at the next telegram, tells the target, and exits with 0."""
    size = 400
    block = bytearray(size + 5)
    with (
        FakePlc({600: block}, writable={600: (0, size + 5)}) as plc,
        MirrorRig(
            plc.port, size, consistent_bytes=1, commit={"begin": 400, "end": 402},
            watchdog={"offset": 404, "alive": 1, "stale": 0},
        ) as rig,
    ):  # fmt: skip
        one, two = bytes([1]) * size, bytes([2]) * size
        rig.send_until(one, lambda: block[404] == 1)
        plc.write_delay_s = 0.05
        rig.send_until(two, lambda: block[0] == 2)
        assert rig.service is not None
        assert rig.service.terminate() == 0, "the whole copy takes 20 s"
        assert block[404] == 0
        assert block[400:402] != block[402:404]


def test_what_does_not_read_back_is_not_committed() -> None:
    size = 100
    block = bytearray(size + 4)
    image = os.urandom(size)
    with (
        FakePlc({600: block}, writable={600: (0, size + 4)}) as plc,
        MirrorRig(plc.port, size, verify=True, commit={"begin": 100, "end": 102}) as rig,
    ):

        def meddle() -> None:
            block[7] = (image[7] + 1) & 0xFF

        plc.before_read = meddle
        rig.send_until(image, lambda: '"mismatch"' in rig.audit)
        for _ in range(20):
            rig.send(image)
            assert block[100:102] != block[102:104]
            time.sleep(0.02)
        assert audit(rig).count("mismatch") == 1, "one line, not one per scan"
        plc.before_read = lambda: None
        rig.send_until(image, lambda: block[:size] == image and block[100:102] == block[102:104])


def test_a_word_nobody_asked_for_ends_the_connection() -> None:
    """It must not be taken for the next answer, nor keep the loop spinning."""
    block = bytearray(SIZE)
    with (
        FakePlc({600: block}, writable=ROOM) as plc,
        MirrorRig(plc.port, SIZE, stale_after=60.0) as rig,
    ):
        rig.send_until(image := os.urandom(SIZE), lambda: block == image)
        cpu_s = rig.cpu_s()
        for s in list(plc._sockets):
            s.sendall(b"\3\0\0\7\2\xf0\x80")
        until(said(rig, "mirror_down"), 5, rig.explain)
        assert rig.cpu_s() - cpu_s < 0.3
        rig.send_until(other := os.urandom(SIZE), lambda: block == other)
        assert plc.connections == 2
