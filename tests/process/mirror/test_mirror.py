"""The mirror process against real S7 servers: what it writes, and all that it must not."""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from tests.kit.c_snap7 import CServer
from tests.kit.common import until
from tests.kit.fake_plc import FakePlc
from tests.kit.mirror_rig import MirrorRig

SENTINEL = 0x5A


@pytest.mark.parametrize("pdu", [240, 480, 960])
@pytest.mark.parametrize("size", [1, 2, 63, 205, 206, 925, 926, 4_000])
def test_byte_exact_and_nothing_else(pdu: int, size: int) -> None:
    """Against the strict fake: the whole target block is compared."""
    start = 100
    block = bytearray([SENTINEL]) * (size + 300)
    # Nothing of it is what the target already shows.
    image = os.urandom(size).replace(bytes([SENTINEL]), b"\0")
    with (
        FakePlc({600: block}, pdu_bytes=pdu, writable={600: (start, start + size)}) as plc,
        MirrorRig(plc.port, size, target={"start": start}) as rig,
    ):
        rig.send_until(image, lambda: block[start : start + size] == image)
        assert set(block[:start]) | set(block[start + size :]) == {SENTINEL}
        assert plc.violations == []
        # As much in one telegram as the granted PDU takes, and not a byte more.
        assert max(len(data) for _, _, data in plc.written) == min(size, pdu - 35)


def test_a_whole_block_of_64_kib() -> None:
    block = bytearray(65_536)
    image = os.urandom(65_536)
    with (
        FakePlc({600: block}, pdu_bytes=960, writable={600: (0, 65_536)}) as plc,
        MirrorRig(plc.port, 65_536) as rig,
    ):
        rig.send_until(image, lambda: block == image, timeout_s=20)
        assert plc.violations == []


# The C server counts a block's size in 16 bits: 65,536 would be 0.
@pytest.mark.parametrize("size", [1, 500, 65_470])
def test_byte_exact_on_the_c_server(size: int) -> None:
    image = os.urandom(size)
    room = size + 64
    with (
        CServer({600: bytes([SENTINEL]) * room}) as server,
        MirrorRig(server.port, size) as rig,
    ):
        rig.send_until(image, lambda: server.read(600)[:size] == image, timeout_s=20)
        assert set(server.read(600)[size:]) <= {SENTINEL}


def test_partial_maps() -> None:
    maps = [{"from": 10, "length": 20, "to": 0}, {"from": 50, "length": 5, "to": 100}]
    block = bytearray([SENTINEL]) * 200
    image = os.urandom(60)
    with (
        FakePlc({600: block}, writable={600: (0, 105)}) as plc,
        MirrorRig(plc.port, 60, maps=maps) as rig,
    ):
        rig.send_until(image, lambda: block[100:105] == image[50:55])
        assert block[:20] == image[10:30]
        assert set(block[20:100]) | set(block[105:]) == {SENTINEL}


def test_a_thousand_changes() -> None:
    """After each quiet period the target shows the source; unchanged scans write nothing."""
    generator = random.Random(5)
    size = 600
    block = bytearray(size)
    image = bytearray(os.urandom(size))
    with (
        FakePlc({600: block}, pdu_bytes=240, writable={600: (0, size)}) as plc,
        MirrorRig(plc.port, size) as rig,
    ):
        rig.send_until(bytes(image), lambda: block == image)
        for n in range(1_000):
            for _ in range(generator.randint(1, 4)):
                at = generator.randrange(size)
                length = generator.randint(1, min(80, size - at))
                image[at : at + length] = generator.randbytes(length)
            rig.send(bytes(image))
            if n % 20 == 19:
                rig.send_until(bytes(image), lambda: block == image)
        rig.send_until(bytes(image), lambda: block == image)
        writes, cpu_s = len(plc.written), rig.cpu_s()
        for _ in range(50):
            rig.send(bytes(image))
        # The mirror has seen them when it sees the next change.
        image[0] ^= 1
        rig.send_until(bytes(image), lambda: block == image)
        assert len(plc.written) - writes <= 2
        assert rig.cpu_s() - cpu_s < 0.2
        assert plc.violations == []


def test_no_torn_copy_is_accepted() -> None:
    """A reader of the target looks while chunks are being written."""
    size = 400
    block = bytearray(size + 4)
    torn = seen = rejected = 0
    with (
        FakePlc({600: block}, pdu_bytes=240, writable={600: (0, size + 4)}) as plc,
        MirrorRig(plc.port, size, commit={"begin": 400, "end": 402}) as rig,
    ):
        plc.write_delay_s = 0.001
        first = bytes([1]) * size
        rig.send_until(first, lambda: block[:size] == first)
        end_s = time.monotonic() + 6
        n = 1
        # A busy machine needs longer to look often enough to prove anything.
        while time.monotonic() < end_s or (
            min(seen, rejected) <= 10 and time.monotonic() < end_s + 30
        ):
            n = n % 250 + 1
            rig.send(bytes([n]) * size)
            for _ in range(30):
                # As the target's program: look at the markers, copy, look again.
                before = bytes(block[400:404])
                copy = bytes(block[:size])
                whole = before == bytes(block[400:404]) and before[:2] == before[2:]
                seen += whole
                rejected += not whole
                torn += whole and len(set(copy)) != 1
                time.sleep(0.0004)
        print(f"{seen} whole copies seen, {rejected} rejected, {torn} torn")
        assert seen > 10
        assert rejected > 10, "nobody looked while chunks were being written"
        assert torn == 0


@pytest.mark.parametrize("kind", ["toggle", "counter"])
def test_the_commit_byte_changes_when_all_is_written(kind: str) -> None:
    """Whenever the byte changes, what stands in the block is one image, the newest."""
    size = 400
    block = bytearray(size + 1)
    block[size] = 7  # the target's program has seen this one: go on from here
    with (
        FakePlc({600: block}, pdu_bytes=240, writable={600: (0, size + 1)}) as plc,
        MirrorRig(plc.port, size, commit={"offset": size, "kind": kind}) as rig,
    ):
        for n in range(1, 31):
            image = bytes([n]) * size
            marks = len([1 for _, start, _ in plc.written if start == size])
            rig.send_until(
                image,
                lambda marks=marks: marks < len([1 for _, s, _ in plc.written if s == size]),
            )
        shown, mark, accepted = bytearray(size), 7, []
        for _, start, data in plc.written:
            if start < size:
                shown[start : start + len(data)] = data
                continue
            assert data[0] == (mark ^ 1 if kind == "toggle" else (mark + 1) & 0xFF)
            mark = data[0]
            assert len(set(shown)) == 1, "torn"
            accepted.append(shown[0])
        assert accepted == list(range(1, 31))


def test_disabled_and_dry_run_write_nothing() -> None:
    for how in ({"enabled": False}, {"dry_run": True}):
        block = bytearray(50)
        with FakePlc({600: block}) as plc, MirrorRig(plc.port, 50, **how) as rig:
            image = os.urandom(50)
            if how.get("dry_run"):
                rig.send_until(image, lambda rig=rig: rig.service.said("would write 50 bytes"))
            else:
                for _ in range(20):
                    rig.send(image)
                assert rig.service is not None
                assert rig.service.terminate() == 0
            assert block == bytearray(50)
            assert plc.written == []
            assert plc.violations == []


@pytest.mark.parametrize("quality", ["bad", "uncertain"])
def test_a_source_that_is_not_good_stops_it(quality: str) -> None:
    block = bytearray(51)
    watchdog = {"offset": 50, "alive": 1, "stale": 0}
    good, other = os.urandom(50), os.urandom(50)
    with (
        FakePlc({600: block}, writable={600: (0, 51)}) as plc,
        MirrorRig(plc.port, 50, watchdog=watchdog) as rig,
    ):
        rig.send_until(good, lambda: block[:50] == good and block[50] == 1)
        rig.send_until(other, lambda: block[50] == 0, quality=quality)
        assert block[:50] == good
        rig.send_until(other, lambda: block[:50] == other and block[50] == 1)


def test_a_silent_source_and_old_images_stop_it() -> None:
    block = bytearray(51)
    watchdog = {"offset": 50, "alive": 1, "stale": 0}
    good, old = os.urandom(50), os.urandom(50)
    with (
        FakePlc({600: block}, writable={600: (0, 51)}) as plc,
        MirrorRig(plc.port, 50, watchdog=watchdog) as rig,
    ):
        rig.send_until(good, lambda: block[50] == 1)
        # What comes is history: it is not written, and the source counts as silent.
        rig.send_until(old, lambda: block[50] == 0, age_ms=5_000)
        assert block[:50] == good
        assert '"the source is silent"' in rig.audit


def test_target_absent_then_there_then_restarted() -> None:
    block = bytearray(50)
    plc = FakePlc({600: block}, writable={600: (0, 50)})
    with plc:
        pass  # the port is known now, and nobody listens
    image = os.urandom(50)
    with MirrorRig(plc.port, 50) as rig:
        rig.send_until(image, lambda: rig.service is not None and rig.service.said("mirror_down"))
        plc.up()
        try:
            rig.send_until(image, lambda: block == image, timeout_s=20)
            plc.down()
            block[:] = bytes(50)  # another CPU: it has lost everything
            plc.up()
            rig.send_until(image, lambda: block == image, timeout_s=20)
        finally:
            plc.down()


def test_target_denied_and_too_short() -> None:
    image = os.urandom(50)
    block = bytearray(20)
    with FakePlc({600: block}, writable={600: (0, 50)}) as plc, MirrorRig(plc.port, 50) as rig:
        rig.send_until(image, lambda: rig.service is not None and rig.service.said("mirror_down"))
        assert block == bytearray(20)
    block = bytearray(50)
    with FakePlc({600: block}, writable={600: (0, 50)}) as plc, MirrorRig(plc.port, 50) as rig:
        plc.write_code = 0x03
        rig.send_until(image, lambda: rig.service is not None and rig.service.said("mirror_down"))
        assert block == bytearray(50)
        plc.write_code = 0xFF
        rig.send_until(image, lambda: block == image, timeout_s=20)


def test_kill_in_the_middle_of_a_copy() -> None:
    """Begin and end differ after the kill; the next process writes everything again."""
    size = 400
    block = bytearray(size + 4)
    commit = {"begin": 400, "end": 402}
    with (
        FakePlc({600: block}, pdu_bytes=240, writable={600: (0, size + 4)}) as plc,
        MirrorRig(plc.port, size, commit=commit) as rig,
    ):
        one, two = bytes([1]) * size, bytes([2]) * size
        rig.send_until(one, lambda: block[:size] == one)
        assert rig.service is not None
        rig.service.end()
        rig.start(PLC_EDGE_FAILPOINT="mirror.after_piece:1")
        service = rig.service
        rig.send_until(two, lambda: service.process.poll() is not None)
        assert block[400:402] != block[402:404], "a torn copy must show"
        rig.service.end()
        rig.start()
        rig.send_until(two, lambda: block[:size] == two and block[400:402] == block[402:404])
        assert plc.violations == []


def test_verify_sees_who_else_writes() -> None:
    block = bytearray(50)
    image = os.urandom(50)
    with (
        FakePlc({600: block}, writable={600: (0, 50)}) as plc,
        MirrorRig(plc.port, 50, verify=True) as rig,
    ):

        def meddle() -> None:
            block[7] = (image[7] + 1) & 0xFF

        plc.before_read = meddle
        rig.send_until(image, lambda: '"mismatch"' in rig.audit)
        plc.before_read = lambda: None
        rig.send_until(image, lambda: bytes(block) == image)


def test_the_rate_is_limited_and_the_newest_image_wins() -> None:
    block = bytearray(50)
    with (
        FakePlc({600: block}, writable={600: (0, 50)}) as plc,
        MirrorRig(plc.port, 50, max_writes_per_s=5) as rig,
    ):
        begin_s = time.monotonic()
        for n in range(200):
            rig.send(bytes([n]) * 50)
            time.sleep(0.005)
        last = bytes([199]) * 50
        rig.send_until(last, lambda: block == last)
        took_s = time.monotonic() - begin_s
        assert len(plc.written) <= took_s * 5 + 2


def test_the_audit_tells_starts_stops_and_full_writes() -> None:
    block = bytearray(50)
    image = os.urandom(50)
    with FakePlc({600: block}, writable={600: (0, 50)}) as plc, MirrorRig(plc.port, 50) as rig:
        rig.send_until(image, lambda: block == image)
        assert rig.service is not None
        until(lambda: "full_write" in rig.audit, 5, "audit")
        assert rig.service.terminate() == 0
        lines = [json.loads(line) for line in rig.audit.splitlines()]
        assert [line["what"] for line in lines] == ["start", "full_write", "stop"]
