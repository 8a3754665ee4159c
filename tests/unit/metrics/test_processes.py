"""supervisord's rows -> restarts, crash loops, and what a person is told."""

from __future__ import annotations

from services.metrics.processes import FLAP_WINDOW_S, ProcessTable
from services.runtime.process_table import Row


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def row(state: str = "RUNNING", start_s: int = 100, exit_status: int = 0, error: str = "") -> Row:
    pid = 4_000_000 if state in ("RUNNING", "STARTING") else 0
    return Row("reader-p1", state, pid, start_s, 0, 200, exit_status, error)


def table() -> tuple[ProcessTable, Clock]:
    clock = Clock()
    return ProcessTable(["reader-p1"], clock), clock


def codes(t: ProcessTable, *rows: Row) -> list[str]:
    return [e.code for e in t.update(list(rows))]


def test_a_first_sight_is_no_event() -> None:
    t, _ = table()
    assert codes(t, row()) == []
    assert codes(t, row()) == []


def test_a_restart_is_counted_even_when_only_its_start_shows() -> None:
    t, _ = table()
    codes(t, row())
    assert codes(t, row(start_s=150)) == ["process_restarted"]
    assert t.entries["reader-p1"].restarts == 1


def test_a_crash_loop_is_told_once_and_ends() -> None:
    t, clock = table()
    codes(t, row())
    told: list[str] = []
    for n in range(6):
        clock.now_s += 5
        told += codes(t, row("BACKOFF", 100 + n))
        told += codes(t, row("STARTING", 101 + n))
    assert told.count("process_flapping") == 1
    assert t.entries["reader-p1"].flapping
    clock.now_s += FLAP_WINDOW_S + 1
    codes(t, row("RUNNING", 106))
    assert not t.entries["reader-p1"].flapping


def test_a_restart_that_was_asked_for_is_none() -> None:
    t, _ = table()
    codes(t, row())
    for n in range(6):
        again = row(start_s=150 + n)
        assert t.restarted([again]) == [again]
        told = [e.code for e in t.update([again], frozenset({"reader-p1"}))]
        assert told == ["process_restart_asked"]
        assert t.restarted([again]) == []
    assert t.entries["reader-p1"].restarts == 0
    assert not t.entries["reader-p1"].flapping


def test_permanent_failure_and_fatal() -> None:
    t, _ = table()
    codes(t, row())
    assert codes(t, row("EXITED", exit_status=78)) == ["process_exited"]
    assert "configuration is wrong" in t.entries["reader-p1"].why
    assert codes(t, row("EXITED", exit_status=78)) == []
    t, _ = table()
    codes(t, row())
    assert codes(t, row("FATAL", error="can't find command")) == ["process_fatal"]
    assert t.entries["reader-p1"].why == "can't find command"


def test_the_end_is_told_in_words() -> None:
    t, _ = table()
    codes(t, row())
    codes(t, row("BACKOFF", exit_status=-1))
    assert "killed by a signal" in t.entries["reader-p1"].why
    codes(t, row("EXITED", exit_status=1))
    assert "exit status 1" in t.entries["reader-p1"].why


def test_stopped_by_hand() -> None:
    t, _ = table()
    codes(t, row())
    assert codes(t, row("STOPPED")) == ["process_stopped"]


def test_supervisord_away_and_back_is_told_once() -> None:
    t, _ = table()
    codes(t, row())
    assert [e.code for e in t.unreachable("no socket")] == ["supervisor_unreachable"]
    assert t.unreachable("no socket") == []
    assert t.entries["reader-p1"].state == "UNKNOWN"
    assert codes(t, row()) == ["supervisor_back"]
    assert t.entries["reader-p1"].restarts == 0


def test_a_process_that_supervisord_does_not_know() -> None:
    t, _ = table()
    assert codes(t) == []
    assert t.entries["reader-p1"].state == "MISSING"
    assert "plc-edge apply" in t.entries["reader-p1"].why
