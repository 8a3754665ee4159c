"""The loop of every process: nothing that waits is forgotten, and timers come together."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bus.frames import Ready
from services.runtime.process import Process
from tests.kit.publisher_rig import run_folder


@pytest.fixture
def process() -> Iterator[Process]:
    with run_folder() as run:
        config = {"process": "x", "folder": "x", "runtime": str(run), "state": str(run)}
        it = Process(config, run / "x.json")
        yield it
        it.bus.close()


def turns(process: Process, until_s: float, done: list[object], count: int) -> None:
    end_s = time.monotonic() + until_s
    while len(done) < count:
        process.step()
        assert time.monotonic() < end_s, f"{len(done)} of {count}"


def test_who_leaves_frames_unread_is_called_again(process: Process) -> None:
    pull, push = process.bus.bind("receipts"), process.bus.connect("receipts")
    got: list[object] = []

    def take_one() -> None:
        if (frame := pull.receive()) is not None:
            got.append(frame)

    process.on_readable(pull, take_one)
    end_s = time.monotonic() + 5
    while not push.send(Ready("a", 1, 1)):  # connecting takes a moment
        assert time.monotonic() < end_s
    for n in range(2, 11):
        assert push.send(Ready("a", n, 1))
    turns(process, 5, got, 10)
    assert [f.session for f in got if isinstance(f, Ready)] == list(range(1, 11))


def test_frames_that_came_before_the_handler_are_seen(process: Process) -> None:
    pull, push = process.bus.bind("receipts"), process.bus.connect("receipts")
    end_s = time.monotonic() + 5
    while not push.send(Ready("a", 1, 1)):
        assert time.monotonic() < end_s
    assert pull.socket.poll(5_000)
    got: list[object] = []
    process.on_readable(pull, lambda: got.append(pull.receive()))
    turns(process, 5, got, 1)
    assert isinstance(got[0], Ready)


def test_what_is_left_by_somebody_else_is_looked_for_when_asked(process: Process) -> None:
    pull, push = process.bus.bind("receipts"), process.bus.connect("receipts")
    got: list[object] = []

    def take_one() -> None:
        if (frame := pull.receive()) is not None:
            got.append(frame)

    process.on_readable(pull, take_one)
    end_s = time.monotonic() + 5
    while not push.send(Ready("a", 1, 1)):
        assert time.monotonic() < end_s
    assert push.send(Ready("a", 2, 1))
    assert pull.socket.poll(5_000)
    while pull.receive() is None:
        assert time.monotonic() < end_s
    process.look_again(pull)
    turns(process, 5, got, 1)


def test_timers_of_one_rate_come_in_one_turn(process: Process) -> None:
    turn = 0
    came: list[tuple[int, str]] = []
    process.every(0.2, lambda: came.append((turn, "a")))
    time.sleep(0.05)
    process.every(0.2, lambda: came.append((turn, "b")))
    end_s = time.monotonic() + 5
    while len(came) < 8:
        turn += 1
        process.step()
        assert time.monotonic() < end_s
    by_turn = {at: {name for t, name in came if t == at} for at, _ in came}
    assert list(by_turn.values())[1:] == [{"a", "b"}] * (len(by_turn) - 1)
    assert len(by_turn) == 4
