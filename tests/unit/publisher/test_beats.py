"""Heartbeats: whose, how old, and what is said of silent and of removed PLCs."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from bus.frames import Heartbeat
from services.publisher.beats import Beats
from services.runtime.clock import now_ms

PLC = {"id": "p1", "locatario": "acme", "host": "10.0.0.1", "heartbeat_s": 10.0}


@pytest.fixture
def said() -> list[tuple[str, str, Any]]:
    return []


@pytest.fixture
def beats(said: list[tuple[str, str, Any]]) -> Beats:
    def send(locatario: str, plc: str, payload: bytes) -> None:
        said.append((locatario, plc, orjson.loads(payload) if payload else None))

    return Beats("planta-sp", ["acme"], send)


def beat(**more: Any) -> Heartbeat:
    fields = {"plc": "p1", "locatario": "acme", "ip": "10.0.0.1", "ts_ms": now_ms()}
    return Heartbeat(**{**fields, "status": "online", **more})


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    later = time.monotonic() + seconds
    monkeypatch.setattr("services.publisher.beats.time.monotonic", lambda: later)


def test_silent_after_three_intervals_and_again_each_interval(
    beats: Beats, said: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats.configure([PLC])
    beats.receive(beat(reads_ok=7))
    for after_s, count in ((29, 1), (31, 2), (35, 2), (42, 3)):
        with monkeypatch.context() as patch:
            pass_time(patch, after_s)
            beats.tick()
        assert len(said) == count, after_s
    last = said[-1][2]
    assert (last["status"], last["failure"]["code"]) == ("offline", "reader_silent")
    assert last["reads_ok"] == 7


def test_a_reader_that_never_spoke_is_offline_with_the_configured_address(
    beats: Beats, said: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats.configure([PLC])
    pass_time(monkeypatch, 31)
    beats.tick()
    assert said[0][2]["ip"] == "10.0.0.1"
    assert said[0][2]["status"] == "offline"


def test_an_old_heartbeat_is_not_news(beats: Beats, said: list[tuple[str, str, Any]]) -> None:
    """The store hands on the last one of a reader that died long ago."""
    beats.configure([PLC])
    beats.receive(beat(ts_ms=now_ms() - 60_000))
    assert said == []
    beats.tick()
    assert said[0][2]["status"] == "offline"


def test_a_clock_that_was_set_back_is_no_silence(
    beats: Beats, said: list[tuple[str, str, Any]]
) -> None:
    beats.configure([PLC])
    beats.receive(beat(ts_ms=now_ms() + 3_600_000))
    beats.tick()
    assert [s[2]["status"] for s in said] == ["online"]


def test_removed_and_moved_plcs_are_cleared(beats: Beats, said: list[tuple[str, str, Any]]) -> None:
    beats.configure([PLC, {**PLC, "id": "p2"}])
    beats.configure([PLC])
    assert said == [("acme", "p2", None)]
    beats.configure([{**PLC, "locatario": "beta"}])
    assert said[1:] == [("acme", "p1", None)]
    beats.receive(beat(removed=True))
    assert said[2:] == [("acme", "p1", None)]


def test_other_tenants_are_not_for_this_output(
    beats: Beats, said: list[tuple[str, str, Any]]
) -> None:
    beats.configure([{**PLC, "locatario": "beta"}])
    beats.receive(beat(locatario="beta"))
    assert said == []


def test_failure_only_when_not_online(beats: Beats, said: list[tuple[str, str, Any]]) -> None:
    beats.configure([PLC])
    failure = {"code": "timeout", "message": "no answer", "since": 5, "attempts": 2}
    beats.receive(beat(failure=failure))
    beats.receive(beat(status="offline", failure=failure))
    assert "failure" not in said[0][2]
    assert said[1][2]["failure"] == failure
