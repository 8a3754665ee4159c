"""What ``check`` refuses of mirrors, and where it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import loader
from services.runtime.errors import ConfigError

Found = list[tuple[str, str]]


def plc(name: str, host: str, *dbs: int, raw: Any = True) -> dict[str, Any]:
    """A PLC that reads 10 bytes (20 to 29) of each block."""
    fields = [{"name": f"f{i}", "address": f"DBW{20 + 2 * i}:INT"} for i in range(5)]
    groups = [
        {"name": f"db{n}", "db": n, "scan": "1s", "raw": raw}
        | {"fields": [{**f, "address": f"DB{n}.{f['address']}"} for f in fields]}
        for n in dbs
    ]
    return {"id": name, "host": host, "groups": groups}


def mirror(name: str, source: str, host: str, db: int, **more: Any) -> dict[str, Any]:
    """``source`` is "plc/group"; ``start`` goes into the target."""
    plc_id, group = source.split("/")
    target = {"host": host, "db": db, "start": more.pop("start", 0)}
    return {"name": name, "source": {"plc": plc_id, "group": group}, "target": target, **more}


def problems(folder: Path, plcs: list[Any], *mirrors: dict[str, Any]) -> Found:
    """(key, message) of everything that is refused."""
    file = folder / "config.yaml"
    site = {"site": "s1", "locatario": "acme", "plcs": plcs, "mirrors": list(mirrors)}
    file.write_text(yaml.safe_dump(site))
    try:
        loader.load(file)
    except ConfigError as e:
        return [(p.key, p.message) for p in e.problems]
    return []


A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PLCS = [plc("aa", A, 1, 2), plc("bb", B, 1, 2), plc("cc", C, 1)]


@pytest.mark.parametrize(
    "mirrors",
    [
        # Another block of the same PLC, the same block number of another.
        [mirror("m1", "aa/db1", A, 7), mirror("m2", "aa/db1", B, 1)],
        # A chain is no loop; two mirrors may share a block, side by side.
        [mirror("m1", "aa/db1", B, 1), mirror("m2", "bb/db1", C, 1)],
        [mirror("m1", "aa/db1", C, 9), mirror("m2", "bb/db1", C, 9, start=10)],
        # Back to another block than the source's.
        [mirror("m1", "aa/db1", B, 1), mirror("m2", "bb/db1", A, 2)],
        [mirror("m1", "aa/db1", B, 9, maps=[{"from": 20, "length": 10, "to": 65_526}])],
        [mirror("m1", "aa/db1", B, 9, commit={"begin": 10, "end": 12}, watchdog={"offset": 14})],
    ],
)
def test_what_is_allowed(tmp_path: Path, mirrors: list[dict[str, Any]]) -> None:
    assert problems(tmp_path, PLCS, *mirrors) == []


@pytest.mark.parametrize(
    ("mirrors", "key", "words"),
    [
        ([mirror("m1", "aa/db1", A, 1)], "mirrors[0].target.db", "is the source itself"),
        # Even where the bytes are others: one slip of an offset and it feeds itself.
        ([mirror("m1", "aa/db1", A, 1, start=500)], "mirrors[0].target.db", "the source itself"),
        (
            [mirror("m1", "aa/db1", B, 1), mirror("m2", "bb/db1", A, 1)],
            "mirrors[1].target.db",
            "closes a loop",
        ),
        (
            [
                mirror("m1", "aa/db1", B, 1),
                mirror("m2", "bb/db1", C, 1),
                mirror("m3", "cc/db1", A, 1),
            ],
            "mirrors[2].target.db",
            "closes a loop",
        ),
        (
            [mirror("m1", "aa/db1", C, 9), mirror("m2", "bb/db1", C, 9, start=9)],
            "mirrors[1].target.start",
            "mirror 'm1' (mirrors[0]) writes too",
        ),
        (
            [
                mirror("m1", "aa/db1", C, 9, watchdog={"offset": 30}),
                mirror("m2", "bb/db1", C, 9, start=25),
            ],
            "mirrors[1].target.start",
            "mirror 'm1' (mirrors[0]) writes too",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, maps=[{"from": 19, "length": 2, "to": 0}])],
            "mirrors[0].maps[0].from",
            "bytes 19 to 20 are not read",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, maps=[{"from": 25, "length": 6, "to": 0}])],
            "mirrors[0].maps[0].from",
            "bytes 25 to 30 are not read",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, maps=[{"from": 20, "length": 10, "to": 65_527}])],
            "mirrors[0].target.start",
            "past byte 65535",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, start=65_530)],
            "mirrors[0].target.start",
            "past byte 65535",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, commit={"begin": 9, "end": 12})],
            "mirrors[0].target.start",
            "two of its own ranges meet at byte 9",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, commit={"begin": 20, "end": 21})],
            "mirrors[0].target.start",
            "two of its own ranges meet at byte 21",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, commit={"offset": 12}, watchdog={"offset": 12})],
            "mirrors[0].target.start",
            "two of its own ranges meet at byte 12",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, commit={"begin": 10})],
            "mirrors[0].commit",
            "`begin:` needs `end:`",
        ),
        (
            [mirror("m1", "aa/db1", B, 9, commit={"offset": 10, "begin": 12, "end": 14})],
            "mirrors[0].commit",
            "give either",
        ),
        ([mirror("m1", "aa/db1", B, 9), mirror("m1", "bb/db1", C, 9)], "mirrors[1].name", "m1"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, mirrors: list[dict[str, Any]], key: str, words: str
) -> None:
    found = problems(tmp_path, PLCS, *mirrors)
    assert [(k, m) for k, m in found if k == key and words in m], found


def test_a_source_whose_bytes_are_not_on_the_bus(tmp_path: Path) -> None:
    plcs = [plc("aa", A, 1, raw=False)]
    found = problems(tmp_path, plcs, mirror("m1", "aa/db1", B, 9))
    assert [k for k, _ in found] == ["mirrors[0].source.group"], found


def test_nothing_is_written_by_default(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    site = {"site": "s1", "locatario": "acme", "plcs": PLCS}
    file.write_text(yaml.safe_dump(site | {"mirrors": [mirror("m1", "aa/db1", B, 9)]}))
    (only,) = loader.load(file).config.mirrors
    assert only.enabled is False
    assert only.consistent_bytes == 64
