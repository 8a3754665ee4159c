"""What a reader publishes when the PLC refuses, stops, stalls or comes back as another."""

from __future__ import annotations

import datetime
import socket
import struct
import time
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from services.protocols.s7 import group as s7_group
from tests.kit.fake_plc import FakePlc
from tests.kit.reader_rig import ReaderRig
from tests.kit.tracing import needs_strace, tampered


def reals(count: int, step: int = 4) -> list[dict[str, Any]]:
    return [{"name": f"f{i}", "address": f"DB7.DBD{i * step}:REAL"} for i in range(count)]


def block(count: int, step: int = 4) -> bytearray:
    data = bytearray(count * step)
    for i in range(count):
        struct.pack_into(">f", data, i * step, i + 0.5)
    return data


def plc(fake: FakePlc | int, fields: list[dict[str, Any]], **group: Any) -> dict[str, Any]:
    group = {"name": "g1", "scan": "50ms", "publish": "always", **group}
    port = fake if isinstance(fake, int) else fake.port
    return {"id": "forno-01", "host": "127.0.0.1", "port": port,
            "groups": [{**group, "fields": fields}]}  # fmt: skip


@pytest.mark.parametrize("pdu", [240, 960])
@pytest.mark.parametrize("step", [4, 10, 40])
def test_a_refused_field_never_costs_a_neighbour(pdu: int, step: int) -> None:
    # First, last, two beside each other, and fields on both sides of where telegrams are cut.
    wrong = {0, 54, 55, 57, 100, 149}
    with FakePlc({7: block(150, step)}, pdu_bytes=pdu, jobs=3) as fake:
        fake.denied |= {(7, i * step, i * step + 1) for i in wrong}
        with ReaderRig(plc(fake, reals(150, step))) as rig:
            rig.wait(lambda: len(rig.messages) > 5)
            for m in rig.messages:
                assert set(m["bad"].items()) == {(f"f{i}", "access_denied") for i in wrong}
                assert m["values"] == {f"f{i}": i + 0.5 for i in range(150) if i not in wrong}
            rig.wait(lambda: rig.metric("plc_edge_fields_bad") == len(wrong))
        assert fake.violations == []


def test_what_lies_between_fields_may_be_refused() -> None:
    with FakePlc({7: block(40, 8)}, pdu_bytes=240) as fake:
        fake.denied |= {(7, i * 8 + 4, i * 8 + 8) for i in (3, 20, 21)}
        with ReaderRig(plc(fake, reals(40, 8))) as rig:
            rig.wait(lambda: len(rig.messages) > 3)
            for m in rig.messages:
                assert "bad" not in m
                assert len(m["values"]) == 40


def test_a_short_block_gives_what_it_has() -> None:
    with FakePlc({7: block(30)}, pdu_bytes=240) as fake:
        fields = [*reals(40), {"name": "other", "address": "DB9.DBW0:INT"}]
        with ReaderRig(plc(fake, fields)) as rig:
            rig.wait(lambda: len(rig.messages) > 3)
            bad = {f"f{i}": "address_out_of_range" for i in range(30, 40)}
            assert rig.messages[0]["bad"] == {**bad, "other": "object_does_not_exist"}
            assert len(rig.messages[0]["values"]) == 30
            assert rig.messages[0]["quality"] == "good"


def test_refused_fields_come_back() -> None:
    with FakePlc({7: block(30)}, pdu_bytes=240, jobs=1) as fake:
        fake.denied.add((7, 40, 44))
        with ReaderRig(plc(fake, reals(30))) as rig:
            rig.wait(lambda: rig.beats and rig.beats[-1].status == "degraded")
            failure = rig.beats[-1].failure
            assert failure is not None
            assert failure["code"] == "fields_refused"
            assert failure.keys() == {"code", "message", "since", "attempts"}
            rig.wait(lambda: rig.messages)
            reads = len(fake.scans_ns)
            fake.denied.clear()
            rig.wait(lambda: "bad" not in rig.messages[-1], s7_group.RETRY_S + 10)
            assert len(rig.messages[-1]["values"]) == 30
            rig.wait(lambda: rig.beats[-1].status == "online")
            assert rig.beats[-1].failure is None
            # Found once, then asked for apart only now and then: one request a scan.
            assert len(fake.scans_ns) - reads < len(rig.messages) + 10
            assert sum(e.code == "fields_refused" for e in rig.events) == 1


def test_a_cpu_in_stop_is_uncertain_from_its_first_scan() -> None:
    with FakePlc({7: block(4)}, jobs=1) as fake:
        fake.cpu.running = False
        with ReaderRig(plc(fake, reals(4), publish="on_change", max_silence="60s")) as rig:
            rig.wait(lambda: rig.messages)
            assert [m["quality"] for m in rig.messages] == ["uncertain"]
            assert rig.messages[0]["bad"] == {"*": "cpu_stop"}
            rig.wait(lambda: rig.beats and rig.beats[-1].status == "degraded")
            fake.cpu.running = True
            rig.wait(lambda: rig.messages[-1]["quality"] == "good")
            fake.cpu.running = False
            rig.wait(lambda: rig.messages[-1]["quality"] == "uncertain")
            assert [m["quality"] for m in rig.messages] == ["uncertain", "good", "uncertain"]
            assert [m["seq"] for m in rig.messages] == [1, 2, 3]
        assert fake.violations == []


# In the last case the REAL is a NaN, which no comparison finds equal to itself.
@pytest.mark.parametrize(
    ("address", "rest"), [("DB8.DBW0:INT", "0000"), ("DB8.DBX3.0:BOOL", "0000"),
                          ("DB8.DBD0:REAL", "7fc0")],
)  # fmt: skip
def test_alive_stands_in_where_the_cpu_does_not_tell(address: str, rest: str) -> None:
    data = block(4)
    with FakePlc({7: data, 8: bytearray.fromhex(rest + "0000")}) as fake:
        fake.answers_state = False
        given = plc(fake, reals(4), scan="50ms")
        given["alive"] = {"address": address, "timeout": "1s"}
        beating = True

        def program() -> None:
            if beating:
                at = 1 if address.endswith("INT") else 3
                fake.blocks[8][at] = (fake.blocks[8][at] + 1) & 0xFF

        fake.before_read = program
        with ReaderRig(given) as rig:
            # Two tries, each a timeout, then the reader knows that this CPU does not tell.
            rig.wait(lambda: rig.messages and time.monotonic(), 5)
            rig.wait(lambda: [m["quality"] for m in rig.messages[-40:]] == ["good"] * 40, 20)
            connections = fake.connections
            beating = False
            rig.wait(lambda: rig.messages[-1]["bad"] == {"*": "alive_stale"}
                     if "bad" in rig.messages[-1] else False)  # fmt: skip
            assert rig.messages[-1]["quality"] == "uncertain"
            rig.wait(lambda: rig.beats[-1].status == "degraded")
            beating = True
            rig.wait(lambda: rig.messages[-1]["quality"] == "good")
            assert fake.connections == connections


def test_the_plcs_clock_as_timestamp() -> None:
    data = bytearray(20)
    shown_ms: set[int] = set()

    def set_clock(now: datetime.datetime) -> None:
        ms = now.microsecond // 1_000
        shown_ms.add(int(now.timestamp()) * 1_000 + ms)
        struct.pack_into(">HBBBBBBI", data, 4, now.year, now.month, now.day, 1, now.hour,
                         now.minute, now.second, ms * 1_000_000)  # fmt: skip

    with FakePlc({7: data}) as fake:
        off = datetime.timedelta(seconds=-3)
        fake.before_read = lambda: set_clock(datetime.datetime.now(datetime.UTC) + off)
        fields = [*reals(1), {"name": "clock", "address": "DB7.DBX4.0:DTL"}]
        with ReaderRig(plc(fake, fields, timestamp="clock")) as rig:
            rig.wait(lambda: len(rig.messages) > 5)
            assert rig.messages[-1]["quality"] == "good"
            assert {m["ts"] for m in rig.messages[:6]} <= shown_ms
            off = datetime.timedelta(days=-400)  # nobody has set it
            rig.wait(lambda: rig.messages[-1]["quality"] == "uncertain")
            assert rig.messages[-1]["bad"] == {"clock": "plc_clock_off"}
            assert abs(rig.messages[-1]["ts"] - time.time() * 1_000) < 20_000


def test_the_plcs_local_time_is_the_messages_utc() -> None:
    """São Paulo's time is three hours behind; `values` hold what the PLC shows."""
    data = bytearray(20)
    shown_ms: set[int] = set()

    def set_clock() -> None:
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=3)
        ms = now.microsecond // 1_000
        shown_ms.add(int(now.timestamp()) * 1_000 + ms)
        local = now - datetime.timedelta(hours=3)
        struct.pack_into(">HBBBBBBI", data, 4, local.year, local.month, local.day, 1, local.hour,
                         local.minute, local.second, ms * 1_000_000)  # fmt: skip

    with FakePlc({7: data}) as fake:
        fake.before_read = set_clock
        config = plc(fake, [*reals(1), {"name": "clock", "address": "DB7.DBX4.0:DTL"}],
                     timestamp="clock")  # fmt: skip
        with ReaderRig({**config, "timezone": "America/Sao_Paulo"}) as rig:
            rig.wait(lambda: len(rig.messages) > 5)
            last = rig.messages[-1]
            assert last["quality"] == "good"
            assert last["ts"] in shown_ms
            shown = datetime.datetime.fromisoformat(last["values"]["clock"][:23] + "+00:00")
            assert abs(shown.timestamp() * 1_000 + 3 * 3_600_000 - last["ts"]) <= 1


def test_put_get_taken_away() -> None:
    with FakePlc({7: block(4)}) as fake, ReaderRig(plc(fake, reals(4))) as rig:
        rig.wait(lambda: len(rig.messages) > 2)
        fake.refusal = 0x8104
        rig.wait(lambda: rig.messages[-1]["quality"] == "bad")
        assert rig.messages[-1]["values"] == {}
        assert set(rig.messages[-1]["bad"].values()) == {"function_refused"}
        rig.wait(lambda: rig.beats[-1].status == "degraded")
        failure = rig.beats[-1].failure
        assert failure is not None
        assert "PUT/GET" in failure["message"]
        fake.refusal = 0
        rig.wait(lambda: rig.messages[-1]["quality"] == "good")
        rig.wait(lambda: rig.beats[-1].status == "online")
        assert fake.connections == 1


@pytest.mark.timing
def test_no_drift_and_every_overrun_is_counted() -> None:
    with FakePlc({7: block(4)}) as fake, ReaderRig(plc(fake, reals(4), scan="40ms")) as rig:
        rig.wait(lambda: len(rig.messages) > 100)
        reads = fake.scans_ns[5:]
        # Every slot on the grid of the first: a loop that waits after its work would slip.
        late_ms = [((at - reads[0]) / 1e6 + 20) % 40 - 20 for at in reads]
        assert abs(late_ms[-1]) < 15
        assert len([m for m in late_ms if abs(m) > 15]) < 3
        steps = [b["seq"] - a["seq"] for a, b in pairwise(rig.messages)]
        assert set(steps) == {1}
        before = rig.metric("plc_edge_scan_overruns_total")
        fake.delay_s = 0.1
        rig.wait(lambda: rig.metric("plc_edge_scan_overruns_total") > before + 20)


@pytest.mark.timing
def test_the_first_message_comes_at_once() -> None:
    """A Hello that is lost while the wires are made is said again after 0.1 s."""
    with FakePlc({7: block(4)}) as fake, ReaderRig(plc(fake, reals(4))) as rig:
        begin_s = time.monotonic()
        rig.wait(lambda: rig.messages)
        assert time.monotonic() - begin_s < 0.8


def test_a_plc_that_accepts_and_resets_is_not_online() -> None:
    with FakePlc({7: block(4)}) as fake, ReaderRig(plc(fake, reals(4))) as rig:
        rig.wait(lambda: len(rig.messages) > 2)
        fake.faults = {"reset": 1.0}
        rig.wait(lambda: rig.messages[-1]["quality"] == "bad")
        said = len(rig.messages)
        connections, begin_s = fake.connections, time.monotonic()
        rig.wait(lambda: fake.connections >= connections + 4, 20)
        # Exponential: four more attempts take at least half of 0.5 + 1 + 2 + 4 s.
        assert time.monotonic() - begin_s > 2.5
        # One message says that it is gone, not one per attempt; so does one line of the log.
        assert len(rig.messages) == said
        assert {b.status for b in rig.beats[-2:]} == {"offline"}
        failure = rig.beats[-1].failure
        assert failure is not None
        assert failure["code"] == "reset"
        assert failure["attempts"] >= 3
        assert sum(e.code == "reset" for e in rig.events) == 1
        fake.faults = {}
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 20)
        assert rig.messages[-1]["seq"] == len(rig.messages)
        rig.wait(lambda: rig.metric("plc_edge_reconnects_total") >= 4)


def newest_is(rig: ReaderRig, quality: str) -> bool:
    return [m["quality"] for m in rig.messages[-1:]] == [quality]


@needs_strace
def test_an_unsynchronised_clock_is_uncertain() -> None:
    with (
        FakePlc({7: block(4)}) as fake,
        ReaderRig(plc(fake, reals(4), publish="on_change"), clock_sync="required") as rig,
    ):
        pid = rig.service.process.pid
        for error_us, quality in ((500, "good"), (16_000_000, "uncertain"), (500, "good")):
            # struct timex: maxerror is its fourth word.
            timex = (bytes(24) + error_us.to_bytes(8, "little")).hex()
            with tampered(pid, "clock_adjtime", f"retval=0:poke_exit=@arg2={timex}"):
                newest = partial(
                    lambda q: [m["quality"] for m in rig.messages[-1:]] == [q], quality
                )
                rig.wait(newest)
        doubted = next(m for m in rig.messages if m["quality"] == "uncertain")
        assert doubted["bad"] == {"*": "clock_unsynchronised"}
        assert doubted["values"] == {f"f{i}": i + 0.5 for i in range(4)}
        assert rig.beats[-1].status == "online"  # the PLC is well


def test_a_plc_that_does_not_answer_holds_up_nothing_else() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,  # the kernel accepts, nobody answers
        ReaderRig({**plc(deaf.getsockname()[1], reals(4)), "timeout": "20s"}) as rig,
    ):
        rig.wait(lambda: len(rig.beats) >= 4)
        steps_ms = [b.ts_ms - a.ts_ms for a, b in pairwise(rig.beats[1:])]
        assert max(steps_ms) < 5_000, "one a second, not one a timeout"
        assert {b.status for b in rig.beats} == {"offline"}
        assert rig.service.terminate() == 0


def test_it_starts_without_its_plc() -> None:
    with FakePlc({7: block(4)}) as fake:
        fake.down()
        with ReaderRig(plc(fake, reals(4))) as rig:
            rig.wait(lambda: rig.messages)
            assert rig.messages[0]["bad"] == {"*": "plc_offline"}
            rig.wait(lambda: rig.beats and rig.beats[-1].failure is not None)
            failure = rig.beats[-1].failure
            assert failure is not None
            assert failure["code"] == "refused"
            fake.up()
            rig.wait(lambda: rig.messages[-1]["quality"] == "good", 20)
            assert [m["quality"] for m in rig.messages].count("bad") == 1


def test_a_server_that_cuts_items_is_learnt_from_and_one_fault_is_not() -> None:
    with FakePlc({7: block(200, 40)}, pdu_bytes=480) as fake:
        with ReaderRig(plc(fake, reals(200, 40), publish="always")) as rig:
            rig.wait(lambda: len(rig.messages) > 3)
            fake.faults = {"fewer": 1.0}
            rig.wait(lambda: rig.messages[-1]["quality"] == "bad")
            fake.faults = {}
            rig.wait(lambda: rig.messages[-1]["quality"] == "good")
            reads = len(fake.scans_ns)
            count = len(rig.messages)
            rig.wait(lambda: len(rig.messages) > count + 10)
            per_scan = (len(fake.scans_ns) - reads) / (len(rig.messages) - count)
            assert per_scan < 7  # 200 items at 39 each: six
            fake.cut_items = 20
            rig.wait(lambda: rig.messages[-1]["quality"] == "bad")
            rig.wait(lambda: rig.messages[-1]["quality"] == "good")
            assert rig.messages[-1]["values"] == {f"f{i}": i + 0.5 for i in range(200)}
        assert fake.violations == []


def test_a_consistent_group_with_a_refused_field_stays_connected() -> None:
    with FakePlc({7: block(54)}, pdu_bytes=240) as fake:
        fake.denied.add((7, 100, 104))
        with ReaderRig(plc(fake, reals(54), consistent=True)) as rig:
            rig.wait(lambda: len(rig.messages) > 3)
            last = rig.messages[-1]
            assert last["bad"] == {"f25": "access_denied"} or last["quality"] == "uncertain"
            assert last["values"]["f26"] == 26.5
            assert fake.connections == 1


@pytest.mark.timing
def test_unchanged_values_are_not_sent_and_silence_has_an_end() -> None:
    data = block(4)
    with FakePlc({7: data}) as fake:
        given = plc(fake, reals(4), publish="on_change", max_silence="1s")
        with ReaderRig(given) as rig:
            rig.wait(lambda: len(rig.messages) == 3)
            times = [m["ts"] for m in rig.messages]
            assert all(900 < b - a < 1_300 for a, b in pairwise(times))
            struct.pack_into(">f", data, 0, 77.0)
            changed_s = time.monotonic()
            rig.wait(lambda: rig.messages[-1]["values"]["f0"] == 77.0)
            assert time.monotonic() - changed_s < 0.8
            # The panel hears of it four times a second all the same, with bodies now and then.
            seconds = (rig.scans[-1].ts_ms - rig.scans[0].ts_ms) / 1_000
            assert 3 * seconds < len(rig.scans) <= 4 * seconds + 2
            assert any(not scan.bodies for scan in rig.scans)
            # The last value is shown, though it was read in between.
            rig.wait(lambda: b"77.0" in b"".join(rig.scans[-1].bodies))
            assert time.monotonic() - changed_s < 2.0
