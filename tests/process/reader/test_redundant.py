"""A PLC with several addresses: one is read, another where that one is lost or its CPU stops."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from tests.kit.common import free_port
from tests.kit.fake_plc import FakePlc
from tests.kit.reader_rig import ReaderRig

# Two addresses of this machine, one port.
A, B = "127.0.0.1", "127.0.0.2"


@contextmanager
def cpus() -> Iterator[tuple[FakePlc, FakePlc]]:
    """Two CPUs; each serves its own number (1, 2) in DB7."""
    port = free_port()
    blocks = [{7: bytearray(struct.pack(">i", n))} for n in (1, 2)]
    with FakePlc(blocks[0], host=A, port=port) as a, FakePlc(blocks[1], host=B, port=port) as b:
        yield a, b


def plc(port: int, **group: Any) -> dict[str, Any]:
    fields = [{"name": "cpu", "address": "DB7.DBD0:DINT"}]
    group = {"name": "g1", "scan": "50ms", "publish": "always", "fields": fields, **group}
    return {"id": "forno-h", "hosts": [A, B], "port": port, "groups": [group]}


def read_at(rig: ReaderRig) -> tuple[str, int, str]:
    """(address, CPU, quality) of the newest message that has a value."""
    m = next((m for m in reversed(rig.messages) if m["values"]), None)
    return (m["ip"], m["values"]["cpu"], m["quality"]) if m else ("", 0, "")


def switches(rig: ReaderRig) -> list[tuple[str, str]]:
    events = [e.fields for e in rig.events if e.code == "plc_switched"]
    return [(str(f["was"]), str(f["host"])) for f in events]


def assert_one_sequence(rig: ReaderRig) -> None:
    assert {b["seq"] - a["seq"] for a, b in pairwise(rig.messages)} == {1}
    assert len({m["epoch"] for m in rig.messages}) == 1


def test_the_other_cpu_is_read_when_one_is_lost() -> None:
    with cpus() as (a, b), ReaderRig(plc(a.port)) as rig:
        rig.wait(lambda: read_at(rig) == (A, 1, "good"))
        assert b.connections == 0
        a.down()
        rig.wait(lambda: read_at(rig) == (B, 2, "good"), 5)
        rig.wait(lambda: switches(rig) == [(A, B)])
        rig.wait(lambda: rig.beats[-1].ip == B)
        # The PLC was there all the time.
        assert {x.status for x in rig.beats} == {"online"}
        assert {m["quality"] for m in rig.messages} == {"good"}
        # It does not go back by itself, and finds the way back.
        a.up()
        time_of = len(rig.messages)
        rig.wait(lambda: len(rig.messages) > time_of + 20)
        assert read_at(rig) == (B, 2, "good")
        b.down()
        rig.wait(lambda: read_at(rig) == (A, 1, "good"), 20)
        rig.wait(lambda: switches(rig) == [(A, B), (B, A)])
        assert_one_sequence(rig)
        for m in rig.messages:
            assert m["quality"] != "good" or m["ip"] == {1: A, 2: B}[m["values"]["cpu"]]
    assert a.violations == b.violations == []


def test_the_other_cpu_is_read_when_one_stops() -> None:
    with cpus() as (a, _), ReaderRig(plc(a.port)) as rig:
        rig.wait(lambda: read_at(rig) == (A, 1, "good"))
        a.cpu.running = False
        rig.wait(lambda: read_at(rig) == (B, 2, "good"), 10)
        rig.wait(lambda: switches(rig) == [(A, B)])
        rig.wait(lambda: rig.beats[-1].status == "online")
        assert {x.status for x in rig.beats} <= {"online", "degraded"}
        assert a.open_connections == 0
        assert_one_sequence(rig)


def test_no_cpu_is_given_up_for_one_that_is_no_better() -> None:
    with cpus() as (a, b), ReaderRig(plc(a.port)) as rig:
        a.cpu.running = b.cpu.running = False
        rig.wait(lambda: read_at(rig) == (A, 1, "uncertain"))
        rig.wait(lambda: b.connections > 0)
        rig.wait(lambda: b.open_connections == 0)
        count = len(rig.messages)
        rig.wait(lambda: len(rig.messages) > count + 20)
        assert a.connections == 1
        assert {m["ip"] for m in rig.messages} == {A}
        assert switches(rig) == []
        b.cpu.running = True
        rig.wait(lambda: read_at(rig) == (B, 2, "good"), 20)
        assert_one_sequence(rig)


def test_none_answers() -> None:
    with cpus() as (a, b):
        a.down()
        b.down()
        with ReaderRig(plc(a.port)) as rig:
            rig.wait(lambda: rig.messages)
            assert rig.messages[0]["bad"] == {"*": "plc_offline"}
            rig.wait(lambda: rig.beats and (rig.beats[-1].failure or {}).get("attempts", 0) >= 4)
            # Once per address, not per attempt.
            assert sum(e.code == "refused" for e in rig.events) == 2
            b.up()
            rig.wait(lambda: read_at(rig) == (B, 2, "good"), 20)
            rig.wait(lambda: rig.beats[-1].status == "online")
            assert [m["quality"] for m in rig.messages].count("bad") == 1
            assert_one_sequence(rig)


def test_a_pair_that_accepts_and_resets_is_not_asked_in_a_tight_loop() -> None:
    with cpus() as (a, b), ReaderRig(plc(a.port)) as rig:
        rig.wait(lambda: read_at(rig) == (A, 1, "good"))
        for fake in (a, b):
            fake.faults = {"reset": 0.5}
        begin = a.connections + b.connections
        begin_s = time.monotonic()
        rig.wait(lambda: a.connections + b.connections >= begin + 10, 40)
        # Each but one in SWITCH_MIN_S waits half of BACKOFF_S at least.
        assert time.monotonic() - begin_s > 1.5
