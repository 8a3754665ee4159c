"""A PLC that answers late, is off for hours, accepts and is silent, or has no connection left."""

from __future__ import annotations

import struct
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.protocols.attempts import BACKOFF_MAX_S
from tests.kit.fake_plc import FakePlc
from tests.kit.reader_rig import ReaderRig


def plc(fake: FakePlc, *groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = [{"scan": "50ms", "publish": "always", **g} for g in groups]
    return {"id": "forno-01", "host": fake.host, "port": fake.port, "groups": given, **more}


def pair(name: str, db: int) -> dict[str, Any]:
    fields = [{"name": n, "address": f"DB{db}.DBD{at}:DINT"} for n, at in (("a", 0), ("b", 4))]
    return {"name": name, "fields": fields}


def failure(rig: ReaderRig) -> dict[str, Any]:
    return (rig.beats[-1].failure or {}) if rig.beats else {}


def is_good(rig: ReaderRig) -> bool:
    return rig.messages[-1:] != [] and rig.messages[-1]["quality"] == "good"


@pytest.mark.parametrize("fault", ["late", "ghost"])
def test_a_late_reply_is_never_taken_for_another_ones(fault: str) -> None:
    """Two groups of one shape: whose bytes are whose, and how old, only the values show. A ghost
    is a late reply that a gateway gives to the next connection.
    """
    begin_ms = time.time_ns() // 1_000_000
    with FakePlc({7: bytearray(8), 8: bytearray(8)}, pdu_bytes=240, jobs=2) as fake:

        def program() -> None:
            age_ms = time.time_ns() // 1_000_000 - begin_ms
            for db, sign in ((7, 1), (8, -1)):
                struct.pack_into(">ii", fake.blocks[db], 0, sign * age_ms, sign * (age_ms + 1))

        fake.before_read = program
        fake.late_s = 0.25
        given = plc(fake, pair("um", 7), pair("dois", 8), timeout="150ms")
        with ReaderRig(given) as rig:
            rig.wait(lambda: len(rig.messages) > 5)
            for _ in range(3):
                connections, read = fake.connections, len(rig.messages)
                fake.faults = {fault: 1.0}
                # Ghosts of a connection's first requests: the next one's have the same numbers,
                # where numbers begin anew.
                rig.wait(partial(lambda n: fake.connections >= n + 2, connections), 20)
                fake.faults = {}
                rig.wait(partial(lambda n: is_good(rig) and len(rig.messages) > n + 20, read), 20)
            good = [m for m in rig.messages if m["values"]]
            assert {m["group"] for m in good} == {"um", "dois"}
            for m in good:
                sign = 1 if m["group"] == "um" else -1
                a, b = sign * m["values"]["a"], sign * m["values"]["b"]
                assert b == a + 1
                assert abs(m["ts"] - begin_ms - a) < 400, "an old reply was taken for a new one"
        assert fake.violations == []


def test_a_plc_that_is_off_when_the_agent_starts() -> None:
    """Attempt follows attempt without a line of log, a descriptor or memory more."""
    with FakePlc({7: bytearray(8)}) as fake:
        fake.down()
        with ReaderRig(plc(fake, pair("um", 7))) as rig:
            process = Path(f"/proc/{rig.service.process.pid}")

            def cost() -> tuple[int, int, int]:
                status = (process / "status").read_text()
                rss_kib = int(status.split("VmRSS:")[1].split()[0])
                fds = len(list((process / "fd").iterdir()))
                return fds, len(rig.service.text), rss_kib

            rig.wait(lambda: failure(rig).get("attempts", 0) >= 3, 20)
            before = cost()
            rig.wait(lambda: failure(rig).get("attempts", 0) >= 6, 40)
            after = cost()
            assert after[:2] == before[:2]
            assert after[2] - before[2] < 512
            assert [m["bad"] for m in rig.messages] == [{"*": "plc_offline"}]
            fake.up()
            rig.wait(lambda: is_good(rig), BACKOFF_MAX_S + 5)
            assert [m["seq"] for m in rig.messages[:2]] == [1, 2]


@pytest.mark.parametrize(("deaf", "named"), [("cotp", "connection request"), ("setup", "S7 setup")])
def test_it_accepts_and_does_not_answer(deaf: str, named: str) -> None:
    with FakePlc({7: bytearray(8)}) as fake:
        fake.deaf = deaf
        with ReaderRig(plc(fake, pair("um", 7))) as rig:
            rig.wait(lambda: failure(rig).get("attempts", 0) >= 2, 20)
            assert failure(rig)["code"] == "no_s7"
            assert named in failure(rig)["message"]
            assert sum(e.code == "no_s7" for e in rig.events) == 1
            # The loop goes on meanwhile: heartbeats come every second.
            steps_ms = [b.ts_ms - a.ts_ms for a, b in pairwise(rig.beats[1:])]
            assert max(steps_ms) < 2_000
            fake.deaf = ""
            rig.wait(lambda: is_good(rig), 20)
        assert fake.open_connections == 0


@pytest.mark.parametrize("how", ["disconnect", "setup", "close_setup"])
def test_all_connections_taken_as_the_cpu_says_it(how: str) -> None:
    with FakePlc({7: bytearray(8)}) as fake, ReaderRig(plc(fake, pair("hmi", 7))) as other:
        other.wait(lambda: is_good(other))
        fake.max_connections, fake.when_full = 1, how
        with ReaderRig(plc(fake, pair("um", 7))) as rig:
            rig.wait(lambda: failure(rig).get("attempts", 0) >= 1, 10)
            assert failure(rig)["code"] == "connections_full"
            assert "close HMI, TIA Portal" in failure(rig)["message"]
            assert "Connection resources" in failure(rig)["message"]
            fake.max_connections = 2
            rig.wait(lambda: is_good(rig), 20)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_all_connections_taken_and_the_cpu_says_nothing(how: str) -> None:
    """It only hangs up, as for a wrong slot. But that slot was read before."""
    with FakePlc({7: bytearray(8)}) as fake, ReaderRig(plc(fake, pair("um", 7))) as rig:
        rig.wait(lambda: is_good(rig))
        fake.max_connections, fake.when_full = 1, how
        with ReaderRig(plc(fake, pair("hmi", 7))) as other:
            # Not known to be right yet: both causes are named.
            other.wait(lambda: failure(other).get("attempts", 0) >= 1, 10)
            assert failure(other)["code"] == "refused_by_cpu"
            assert "or no connection free" in failure(other)["message"]
            # The other one takes the only connection, and ours is what is refused.
            stopped = psutil.Process(rig.service.pid)
            stopped.suspend()
            fake.reset_all()
            other.wait(lambda: is_good(other), 20)
            stopped.resume()
            rig.wait(lambda: failure(rig).get("code") == "connections_full", 20)
            assert "close HMI, TIA Portal" in failure(rig)["message"]
        rig.wait(lambda: is_good(rig), 20)
        assert sum(e.code == "connections_full" for e in rig.events) == 1
