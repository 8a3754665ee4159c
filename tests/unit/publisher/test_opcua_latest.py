"""The file of newest messages: what a killed process leaves, a full disk, and its size."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from services.publisher.opcua import latest
from services.publisher.opcua.latest import Latest
from tests.kit.opcua_rig import body


def add(store: Latest, *bodies: bytes) -> list[bool]:
    return [store.add(orjson.loads(b), b) for b in bodies]


def test_the_newest_of_each_record_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "x.latest"
    store = Latest(file)
    added = add(
        store,
        body(1, {"a": 1}),
        body(3, {"a": 3}),
        body(2, {"a": 2}),
        body(1, {"a": 9}, machine="m01"),
        body(1, {"a": 0}, epoch=1),
    )
    assert added == [True, True, False, True, False]
    store.flush()
    for _ in range(2):
        found = {(m.get("machine"), m["values"]["a"]) for m in Latest(file).messages()}
        assert found == {(None, 3), ("m01", 9)}
    assert (file.stat().st_mode & 0o777) == 0o600


def test_a_torn_end_costs_its_own_line_only(tmp_path: Path) -> None:
    file = tmp_path / "x.latest"
    store = Latest(file)
    add(store, body(1, {"a": 1}), body(2, {"a": 2}))
    store.flush()
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        found = [m["values"]["a"] for m in Latest(file).messages()]
        first = whole.index(b"\n")
        assert found == ([] if size < first else [2] if size == len(whole) - 1 else [1])


def test_it_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "SPARE_BYTES", 10_000)
    store = Latest(tmp_path / "x.latest")
    opened = len(os.listdir("/proc/self/fd"))
    for i in range(1, 1_000):
        add(store, body(i, {"a": i}))
        store.flush()
        assert (tmp_path / "x.latest").stat().st_size < 12_000
    assert len(os.listdir("/proc/self/fd")) == opened
    assert [m["seq"] for m in Latest(tmp_path / "x.latest").messages()] == [999]


def test_what_left_the_configuration_is_forgotten(tmp_path: Path) -> None:
    store = Latest(tmp_path / "x.latest")
    add(store, body(1, {"a": 1}), body(1, {"a": 2}, plc="forno-02"))
    store.flush()
    store.keep({("forno-02", "db500", None)})
    assert [m["plc_id"] for m in Latest(tmp_path / "x.latest").messages()] == ["forno-02"]
    # It may come back, with the same numbers.
    assert add(store, body(1, {"a": 1})) == [True]
