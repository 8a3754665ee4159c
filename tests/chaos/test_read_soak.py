"""A PLC and a line that do everything wrong, for a while: no wrong value is ever published.

Every value carries its own proof: 32 bits = field number (10), generation (12), checksum (10). The
PLC's program writes a new generation before each read, so a value of another field, of another time
or of nobody shows. ``PLC_EDGE_SOAK_S`` sets the duration (20 s; the full run is 600).
"""

from __future__ import annotations

import itertools
import os
import time

import psutil
import pytest

from tests.kit.box import Box
from tests.kit.fake_plc import FakePlc

SECONDS = float(os.environ.get("PLC_EDGE_SOAK_S", "20"))
FIELDS = 300
# Per reply; a scan has about ten, so most scans see one.
FAULTS = {"reset": 0.004, "drop": 0.002, "late": 0.004, "reorder": 0.08, "cut": 0.004,
          "short": 0.004, "stray": 0.004, "garbage": 0.004, "error": 0.01,
          "half_open": 0.002}  # fmt: skip


def sealed(field: int, generation: int) -> int:
    head = field << 12 | generation & 0xFFF
    return head << 10 | (head * 2_654_435_761 >> 7) & 0x3FF


def opened(value: int) -> tuple[int, int]:
    head = value >> 10
    assert (head * 2_654_435_761 >> 7) & 0x3FF == value & 0x3FF, f"{value:#x} was never written"
    return head >> 12, head & 0xFFF


@pytest.mark.timeout(SECONDS + 120)
def test_no_wrong_value_whatever_the_plc_and_the_line_do() -> None:
    block = bytearray(FIELDS * 10)
    generations = itertools.count(1)
    written = 0

    def program() -> None:
        nonlocal written
        written = next(generations)
        for i in range(FIELDS):
            block[i * 10 : i * 10 + 4] = sealed(i, written).to_bytes(4)

    program()
    box = Box(1)
    with FakePlc({7: block}, pdu_bytes=240, jobs=3) as fake:
        fake.before_read = program
        fake.late_s = 0.7
        # Ten bytes apart: merged or not is the planner's business, not the test's.
        fields = [{"name": f"f{i}", "address": f"DB7.DBD{i * 10}:DWORD"} for i in range(FIELDS)]
        box.real_plcs = [{"id": "forno-02", "host": "127.0.0.1", "port": fake.port,
                          "timeout": "500ms", "heartbeat": "1s",
                          "groups": [{"name": "g1", "scan": "50ms", "publish": "always",
                                      "fields": fields}]}]  # fmt: skip
        with box:
            box.wait_for_messages("forno-02", 3)
            reader = psutil.Process(box.site.pid("reader-forno-02"))
            begin_mb, fds = reader.memory_info().rss / 1e6, reader.num_fds()
            fake.faults = dict(FAULTS)
            end_s = time.monotonic() + SECONDS
            while time.monotonic() < end_s:
                time.sleep(0.5)  # the run itself, not a wait for readiness
            fake.faults = {}
            box.wait_for_messages("forno-02", 10, timeout_s=60)
            messages = box.subscriber.data("forno-02")
            end_mb, end_fds = reader.memory_info().rss / 1e6, reader.num_fds()
        checked = 0
        newest: dict[str, int] = {}
        for m in messages:
            for name, value in m["values"].items():
                field, generation = opened(value)
                assert name == f"f{field}", f"{name} shows the value of f{field}"
                # Generations wrap at 4096; a step back is a stale value.
                step = (generation - newest.get(name, generation)) & 0xFFF
                assert step < 2_048, f"{name} is stale"
                newest[name] = generation
                checked += 1
            for reason in m.get("bad", {}).values():
                assert reason in ("hardware_fault", "plc_offline")
        assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
        done = {k: v for k, v in fake.faults_done.items() if v}
        print(
            f"{checked} values of {len(messages)} messages checked, {written} generations; {done}"
        )
        print(f"RSS {begin_mb:.1f} -> {end_mb:.1f} MB, fds {fds} -> {end_fds}")
        assert checked > 1_000
        assert sum(done.values()) > 20
        assert end_fds <= fds + 1
        assert end_mb < begin_mb + 3
        assert fake.violations == []
