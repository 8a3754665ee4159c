"""A part of a process ends with all that it has registered, and the rest goes on."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest

from services.runtime.background import Background
from services.runtime.part import Part
from services.runtime.process import Process


@pytest.fixture
def process(tmp_path: Path) -> Process:
    config = {"process": "tally", "folder": "tally", "where": "centre", "runtime": str(tmp_path),
              "state": str(tmp_path)}  # fmt: skip
    return Process(config, tmp_path / "tally.json")


def never(error: Exception) -> None:
    raise error


def turn(process: Process, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    process.every(0.01, lambda: None)
    while time.monotonic() < end_s:
        process.step()


def test_it_ends_alone(process: Process) -> None:
    part = Part(process, "acme", {"own": 1}, never)
    assert (part.config, part.item, part.name) == ({"own": 1}, "acme", "tally")
    said: list[str] = []
    read_fd, write_fd = os.pipe()
    part.every(0.01, lambda: said.append("every"))
    part.at(time.monotonic() + 0.2, lambda: said.append("at"))
    part.on_readable(read_fd, lambda: said.append(os.read(read_fd, 9).decode()))
    process.every(0.01, lambda: said.append("other"))
    os.write(write_fd, b"read")
    turn(process, 0.05)
    assert {"every", "read", "other"} == set(said)
    part.end()
    said.clear()
    os.write(write_fd, b"again")
    turn(process, 0.3)
    assert set(said) == {"other"}


def test_its_threads_leave_no_descriptor_behind(process: Process) -> None:
    def life() -> None:
        part = Part(process, "acme", {}, never)
        done: list[object] = []
        background = Background(part)
        background.run(lambda: 1, done.append)
        turn(process, 0.05)
        assert done == [1]
        part.end()

    life()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        life()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_ends_after_it_is_called_back_no_more(process: Process) -> None:
    part = Part(process, "acme", {}, never)
    done: list[object] = []
    Background(part).run(lambda: time.sleep(0.1), done.append)
    part.end()
    turn(process, 0.2)
    assert done == []


@pytest.mark.parametrize("where", ["every", "at", "readable"])
def test_what_it_raises_ends_it_alone_and_is_told_once(process: Process, where: str) -> None:
    told: list[str] = []
    calls: list[str] = []

    def failed(error: Exception) -> None:
        told.append(repr(error))
        part.end()

    def fail() -> None:
        calls.append(where)
        raise RuntimeError(where)

    part = Part(process, "acme", {}, failed)
    wake = os.eventfd(1)
    if where == "every":
        part.every(0.01, fail)
    elif where == "at":
        for _ in range(3):
            part.at(time.monotonic() + 0.01, fail)
    else:
        part.on_readable(wake, fail)
    others: list[str] = []
    process.every(0.01, lambda: others.append("other"))
    turn(process, 0.2)
    assert (calls, told) == ([where], [f"RuntimeError('{where}')"])
    assert len(others) > 5
    os.close(wake)
