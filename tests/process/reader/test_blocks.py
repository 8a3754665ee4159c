"""Blocks that change while they are read, blocks of the largest size, and a thousand groups."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from services.protocols.s7.group import RETRY_S
from services.simulator.station import DB
from tests.kit.c_snap7 import CServer
from tests.kit.fake_plc import FakePlc
from tests.kit.reader_rig import ReaderRig

FIELDS = 100


def block(count: int, first: int = 0) -> bytearray:
    return bytearray(struct.pack(f">{count}i", *range(first, first + count)))


def plc(port: int, *groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = [{"scan": "50ms", "publish": "always", **g} for g in groups]
    return {"id": "forno-01", "host": "127.0.0.1", "port": port, "groups": given, **more}


def download(fake: FakePlc, data: bytearray | None) -> None:
    """DB7 is there anew, with another length; None: it is gone."""
    if data is None:
        del fake.cpu.memory[DB, 7]
    else:
        fake.cpu.memory[DB, 7] = data


def test_a_block_is_downloaded_anew_with_another_length() -> None:
    names = [f"f{i}" for i in range(FIELDS)]
    fields = [{"name": n, "address": f"DB7.DBD{i * 4}:DINT"} for i, n in enumerate(names)]
    other = [{"name": "x", "address": "DB8.DBD0:DINT"}]
    with FakePlc({7: block(FIELDS), 8: block(1)}, pdu_bytes=240, jobs=3) as fake:
        given = plc(fake.port, {"name": "db7", "fields": fields}, {"name": "db8", "fields": other})
        with ReaderRig(given) as rig:

            def newest(group: str = "db7") -> tuple[dict[str, Any], dict[str, Any]]:
                m = next((m for m in reversed(rig.messages) if m["group"] == group), None)
                return (m["values"], m.get("bad", {})) if m else ({}, {})

            whole = {n: i for i, n in enumerate(names)}
            rig.wait(lambda: newest() == (whole, {}))
            for data, reason in (
                (block(30, 500), "address_out_of_range"),  # shorter, and other values
                (None, "object_does_not_exist"),
                (block(60, 700), "address_out_of_range"),  # back, still too short
                (block(FIELDS + 50, 900), ""),  # longer than before
            ):
                download(fake, data)
                count = len(data) // 4 if data is not None else 0
                first = struct.unpack_from(">i", data)[0] if data is not None else 0
                good = {n: first + i for i, n in enumerate(names[:count])}
                bad = dict.fromkeys(names[count:], reason)
                begin_s = time.monotonic()
                rig.wait(partial(lambda wanted: newest() == wanted, (good, bad)), RETRY_S + 10)
                print(f"{count} fields of {FIELDS}: {time.monotonic() - begin_s:.1f} s")
                assert newest("db8") == ({"x": 0}, {})
            # What a moment of a download hid is there within a few seconds, not RETRY_S later.
            download(fake, None)
            rig.wait(lambda: newest()[0] == {})
            download(fake, block(FIELDS))
            rig.wait(lambda: newest() == (whole, {}), RETRY_S / 3)
            # Not one value of a moment that never was: each is of its block's own row.
            for m in rig.messages:
                if m["group"] == "db7":
                    firsts = {v - int(n[1:]) for n, v in m["values"].items()}
                    assert len(firsts) <= 1
                    assert set(m["values"]) | set(m.get("bad", {})) >= set(names) or "*" in m["bad"]
            rig.wait(lambda: rig.beats[-1].status == "online")
            assert fake.connections == 1
        assert fake.violations == []


# The C server keeps a block's length in 16 bits.
@pytest.mark.parametrize(("make", "size"), [(FakePlc, 65_536), (CServer, 65_535)])
def test_the_largest_block_is_read_to_its_last_bit(
    make: Callable[[dict[int, Any]], FakePlc | CServer], size: int
) -> None:
    image = bytearray(size)
    struct.pack_into(">i", image, size - 8, 1_234_567)
    image[-1] = 0x80
    fields = [
        {"name": "first", "address": "DB7.DBB0"},
        {"name": "word", "address": f"DB7.DBD{size - 8}:DINT"},
        {"name": "byte", "address": f"DB7.DBB{size - 1}"},
        {"name": "bit", "address": f"DB7.DBX{size - 1}.7"},
    ]
    with (
        make({7: image}) as server,
        ReaderRig(plc(server.port, {"name": "g1", "fields": fields})) as rig,
    ):
        rig.wait(lambda: rig.messages and rig.messages[-1]["quality"] == "good")
        wanted = {"first": 0, "word": 1_234_567, "byte": 0x80, "bit": True}
        assert rig.messages[-1]["values"] == wanted


def test_a_thousand_groups_on_one_plc() -> None:
    groups = [
        {"name": f"g{n:04d}", "scan": "2s",
         "fields": [{"name": "x", "address": f"DB7.DBD{n * 4}:DINT"}]}
        for n in range(1_000)
    ]  # fmt: skip
    with FakePlc({7: block(1_000)}, pdu_bytes=240, jobs=3) as fake:
        begin_s = time.monotonic()
        with ReaderRig(plc(fake.port, *groups)) as rig:
            ready_s = time.monotonic() - begin_s
            rig.wait(lambda: len({m["group"] for m in rig.messages}) == 1_000, 20)
            print(f"ready after {ready_s:.1f} s, all read after {time.monotonic() - begin_s:.1f} s")
            assert ready_s < 5
            assert all(m["values"]["x"] == int(m["group"][1:]) for m in rig.messages)
            # Nobody starves: five more scans of each at the groups' own rate; then three, of a PLC
            # that gives no more than 300 of the 500 a second.
            for delay_s, scans, limit_s in ((0.0, 5, 15), (0.01, 3, 30)):
                fake.delay_s = delay_s
                count, begin_s = len(rig.messages), time.monotonic()
                rig.wait(partial(lambda n: len(rig.messages) >= n, count + scans * 1_000), limit_s)
                took_s = time.monotonic() - begin_s
                read = Counter(str(m["group"]) for m in rig.messages[count:])
                print(
                    f"{scans} scans of each in {took_s:.1f} s, {min(read.values())} of the rarest"
                )
                assert len(read) == 1_000
                assert min(read.values()) >= scans - 1
        assert fake.violations == []
