"""A library in a thread: what it tells arrives whole and in order, and its end is no end."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from services.protocols import line as line_module
from services.protocols import threaded
from services.protocols.line import Line
from services.protocols.source import Lost
from services.protocols.tags import Change
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from tests.kit.engine_rig import EngineRig, tags


def wait(line: Line) -> None:
    """Until it is closed."""
    while not line.is_closed:
        line.asked(1)


def polled(host: str, line: Line) -> None:
    """A server that counts how often it was read."""
    line.connected("a test")
    reads = 0
    while not line.is_closed:
        group = line.asked(timeout_s=0.2)
        if group is not None:
            reads += 1
            line.read(group, {"a": reads, "b": 7}, {}, began_s=time.monotonic())


def test_a_polled_group(tmp_path: Path) -> None:
    with EngineRig(tmp_path, polled, [tags("g1", "a", "b")]) as rig:
        rig.until(lambda: len(rig.messages) >= 5)
    assert [m["values"]["a"] for m in rig.messages[:5]] == [1, 2, 3, 4, 5]
    assert rig.messages[0]["quality"] == "good"
    assert "db" not in rig.messages[0]
    assert rig.codes == ["plc_online"]
    assert rig.metric("plc_edge_read_requests_total") >= 5


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        for value, bad in ((1, {"b": "no_such_node"}), (2, {"b": "no_such_node"}), (3, {})):
            group = None
            while group is None and not line.is_closed:
                group = line.asked(0.2)
            values: dict[str, Any] = {"a": value} | ({} if bad else {"b": "text"})
            line.read(group or 0, values, bad, began_s=time.monotonic())
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b")], timeout_s=5) as rig:
        rig.until(lambda: len(rig.messages) == 3)
        assert rig.messages[1]["bad"] == {"b": "no_such_node"}
        assert rig.engine.health.status == "online"  # text for an INT is no refusal
    assert rig.messages[2]["bad"] == {"b": "type_differs"}
    refused = next(fields for code, fields in rig.process.events if code == "fields_refused")
    assert refused["fields"] == {"n=b": "no_such_node"}


def test_each_change_of_a_tag_is_a_message_of_its_own(tmp_path: Path) -> None:
    """Some thousand in bursts while the loop has other things to do."""
    count, begin_ms = 3_000, now_ms() - 10_000

    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 0), Change("b", 0)])
        for start in range(1, count, 100):
            burst = [Change("a", n, ts_ms=begin_ms + 3 * n) for n in range(start, start + 100)]
            line.changed(0, burst)
        wait(line)

    group = tags("g1", "a", "b", mode="subscribe")
    with EngineRig(tmp_path, serve, [group]) as rig:
        rig.until(lambda: rig.messages)
        while rig.messages[-1]["values"]["a"] < count - 1:
            rig.step()
            time.sleep(0.01)
    told = [(m["values"]["a"], m["ts"]) for m in rig.messages[1:]]
    assert told == [(n, begin_ms + 3 * n) for n in range(1, count + 1)][: len(told)]
    assert all(m["quality"] == "good" and m["values"]["b"] == 0 for m in rig.messages)


def test_a_full_line_keeps_the_newest_and_tells_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "WAITING_MAX", 100)
    told, ready = threading.Event(), threading.Event()
    count = 1_000

    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 0), Change("b", 0)])
        ready.wait(10)
        for n in range(1, count + 1):
            line.changed(0, [Change("a", n, ts_ms=now_ms())])
        line.changed(0, [Change("b", 1, ts_ms=now_ms())])
        told.set()
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages)
        ready.set()
        assert told.wait(10)  # the loop does not turn meanwhile
        rig.until(lambda: rig.messages[-1]["values"] == {"a": count, "b": 1})
        rig.until(lambda: "changes_lost" in rig.codes)
    values = [m["values"]["a"] for m in rig.messages]
    assert values == sorted(values)
    lost = rig.metric("plc_edge_changes_lost_total")
    assert len(set(values) - {0}) + lost == count
    assert lost == count - 100 - 1
    holes = [m for m in rig.messages if m.get("bad") == {"*": "changes_lost"}]
    assert [m["quality"] for m in holes] == ["uncertain"]
    event = next(fields for code, fields in rig.process.events if code == "changes_lost")
    assert event["fields"] == {"a": lost}


def test_a_hole_that_the_server_tells(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 0)])
        line.changed(0, [Change("a", 1, ts_ms=now_ms())])
        line.lost_changes(0, Lost(1, {"a": 1}))
        line.changed(0, [Change("a", 9, ts_ms=now_ms()), Change("a", 10, ts_ms=now_ms())])
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["values"] == {"a": 10})
    told = [(m["values"]["a"], m["quality"]) for m in rig.messages]
    assert told == [(0, "good"), (1, "good"), (9, "uncertain"), (10, "good")]
    assert rig.metric("plc_edge_changes_lost_total") == 1


def test_a_hole_is_told_though_the_data_is_doubtful_anyway(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 0)])
        line.frozen("server_suspended")
        line.changed(0, [Change("a", 1, ts_ms=now_ms())])
        line.lost_changes(0, Lost(1, {"a": 1}))
        line.changed(0, [Change("a", 9, ts_ms=now_ms())])
        line.changed(0, [Change("a", 10, ts_ms=now_ms())])
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["values"] == {"a": 10})
    told = [(m["values"]["a"], m["bad"]["*"]) for m in rig.messages[1:]]
    assert told == [(1, "server_suspended"), (9, "changes_lost"), (10, "server_suspended")]


def test_first_values_are_one_message(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1)])
        time.sleep(0.2)
        line.changed(0, [Change("b", bad="no_such_node"), Change("c", 3)])
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b", "c", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages)
        assert rig.messages[0]["values"] == {"a": 1, "c": 3}
        assert rig.messages[0]["bad"] == {"b": "no_such_node"}
        assert rig.engine.health.status == "degraded"


def test_a_subscription_repeats_what_it_holds(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1)])
        wait(line)

    group = tags("g1", "a", mode="subscribe", max_silence_s=0.2)
    with EngineRig(tmp_path, serve, [group]) as rig:
        rig.until(lambda: len(rig.messages) >= 3)
    assert all(m["values"] == {"a": 1} and m["quality"] == "good" for m in rig.messages)
    times = [m["ts"] for m in rig.messages]
    assert times == sorted(set(times))


def test_lost_and_made_again(tmp_path: Path) -> None:
    served: list[str] = []

    def serve(host: str, line: Line) -> None:
        served.append(host)
        if len(served) == 2:
            raise PlcUnavailable("refused", "nobody listens")
        line.connected("")
        line.changed(0, [Change("a", len(served))])
        if len(served) == 1:
            time.sleep(0.1)
            raise PlcUnavailable("reset", "the cable")
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["values"] == {"a": 3})
    offline = [m for m in rig.messages if m.get("bad") == {"*": "plc_offline"}]
    assert [m["values"] for m in offline] == [{}]
    assert rig.codes == ["plc_online", "reset", "refused", "plc_online"]
    assert rig.metric("plc_edge_reconnects_total") == 1


def test_what_was_told_before_the_end_arrives(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 0)])
        line.changed(0, [Change("a", n, ts_ms=now_ms()) for n in range(1, 200)])
        raise PlcUnavailable("reset", "at once")

    with EngineRig(tmp_path, serve, [tags("g1", "a", mode="subscribe")]) as rig:
        rig.until(lambda: "reset" in rig.codes)
        values = [m["values"].get("a") for m in rig.messages]
    assert values == [*range(200), None]


def test_another_address_is_tried_at_once(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        if host == "h1":
            raise PlcUnavailable("refused", "h1")
        polled(host, line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b")], hosts=("h1", "h2")) as rig:
        rig.until(lambda: rig.messages)
        assert rig.messages[0]["ip"] == "h2"
        assert rig.codes == ["refused", "plc_switched", "plc_online"]


def test_what_changed_between_two_addresses_is_told(tmp_path: Path) -> None:
    """One is lost, the next answers at once: the PLC is never offline."""

    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1 if host == "h1" else 5)])
        if host == "h1":
            raise PlcUnavailable("reset", "h1")
        line.changed(0, [Change("a", 6, ts_ms=now_ms())])
        wait(line)

    groups = [tags("g1", "a", mode="subscribe")]
    with EngineRig(tmp_path, serve, groups, hosts=("h1", "h2")) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["values"] == {"a": 6})
    told = [(m["values"]["a"], m.get("bad")) for m in rig.messages]
    assert told == [(1, None), (5, {"*": "changes_lost"}), (6, None)]


def test_a_thread_that_hangs_is_given_up_and_never_doubled(tmp_path: Path) -> None:
    running: list[str] = []
    most: list[int] = []

    def serve(host: str, line: Line) -> None:
        running.append(host)
        most.append(len(running))
        line.connected("")
        line.asked(1)
        time.sleep(1.5)  # deaf and dumb, longer than it takes to give it up
        line.read(0, {"a": 1, "b": 1}, {}, began_s=time.monotonic())  # too late: nobody's answer
        running.pop()

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b")]) as rig:
        rig.until(lambda: len(most) == 2)
        assert rig.codes[0] == "timeout"
    assert most == [1, 1]
    assert all(m["quality"] == "bad" for m in rig.messages)


def test_nothing_is_repeated_for_a_subscription_that_hangs(tmp_path: Path) -> None:
    end = threading.Event()

    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1)])
        end.wait(30)  # as if the library were locked

    group = tags("g1", "a", mode="subscribe", max_silence_s=0.1)
    with EngineRig(tmp_path, serve, [group], timeout_s=0.05) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["quality"] == "bad")
        assert rig.codes[-1] == "timeout"
        count = len(rig.messages)
        rig.turn_for(0.5)
        assert len(rig.messages) == count
        end.set()


def test_a_subscription_that_is_quiet_is_kept(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1)])
        while not line.is_closed:
            line.asked(60)  # a nudge ends it

    group = tags("g1", "a", mode="subscribe")
    with EngineRig(tmp_path, serve, [group], timeout_s=0.05) as rig:
        rig.turn_for(2)
        assert rig.codes == ["plc_online"]


def test_an_event_loop_that_has_ended_is_no_end_of_the_process(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        def gone() -> None:
            raise RuntimeError("Event loop is closed")

        line.on_asked = gone
        line.connected("")
        time.sleep(0.2)
        raise PlcUnavailable("reset", "gone")

    with EngineRig(tmp_path, serve, [tags("g1", "a")]) as rig:
        rig.until(lambda: "reset" in rig.codes)


def test_nudges_hide_no_question() -> None:
    line = Line(lambda: None)
    line.nudge()
    line.nudge()
    line.ask(3)
    assert (line.asked(0), line.asked(0)) == (3, None)


def test_a_thread_that_never_ends_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded, "STUCK_S", 0.3)
    end = threading.Event()

    def serve(host: str, line: Line) -> None:
        line.connected("")
        end.wait(30)

    with EngineRig(tmp_path, serve, [tags("g1", "a")]) as rig:
        with pytest.raises(RuntimeError, match="does not end"):
            rig.turn_for(5)
        end.set()


@pytest.mark.parametrize("failure", [ZeroDivisionError("x"), asyncio.CancelledError()])
def test_a_library_that_fails_is_told_and_tried_again(
    failure: BaseException, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    served: list[str] = []

    def serve(host: str, line: Line) -> None:
        served.append(host)
        if len(served) == 1:
            raise failure
        polled(host, line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", "b")]) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["quality"] == "good")
    assert rig.codes == ["protocol", "plc_online"]
    assert "Traceback" in capfd.readouterr().err


def test_a_stopped_cpu(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1)])
        time.sleep(0.1)
        line.frozen("cpu_stop")
        wait(line)

    with EngineRig(tmp_path, serve, [tags("g1", "a", mode="subscribe")]) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["quality"] == "uncertain")
        assert rig.messages[-1]["bad"] == {"*": "cpu_stop"}
        assert rig.messages[-1]["values"] == {"a": 1}
        assert rig.engine.health.status == "degraded"
    assert rig.codes == ["plc_online", "cpu_stop"]


def test_a_whole_request_refused(tmp_path: Path) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        while not line.is_closed:
            if (group := line.asked(0.2)) is not None:
                line.refused(group, "access_denied", "no right", began_s=time.monotonic())

    with EngineRig(tmp_path, serve, [tags("g1", "a")]) as rig:
        rig.until(lambda: rig.messages)
        assert rig.messages[0]["bad"] == {"a": "access_denied"}
        assert rig.engine.health.status == "degraded"
    assert "access_denied" in rig.codes


def test_changes_between_two_addresses_are_told_as_lost(tmp_path: Path) -> None:
    """No `plc_offline` says it: the other address is read at once."""

    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.changed(0, [Change("a", 1 if host == "h1" else 9)])
        if host == "h1":
            time.sleep(0.1)
            raise PlcUnavailable("reset", "the cable")
        wait(line)

    group = tags("g1", "a", mode="subscribe")
    with EngineRig(tmp_path, serve, [group], hosts=("h1", "h2")) as rig:
        rig.until(lambda: rig.messages and rig.messages[-1]["values"] == {"a": 9})
    told = [(m["values"], m.get("bad")) for m in rig.messages]
    assert told == [({"a": 1}, None), ({"a": 9}, {"*": "changes_lost"})]
    assert "plc_switched" in rig.codes
