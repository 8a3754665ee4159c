"""LOGO! 8 and S7-200 SMART: a TSAP instead of rack and slot, V memory, PDU 240, no CPU state."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.simulator.station import FLAGS
from tests.kit.common import ROOT
from tests.kit.fake_plc import FakePlc
from tests.kit.reader_rig import ReaderRig
from tests.kit.site import PLC_EDGE

LOGO, SMART = 0x0200, 0x0300
# They are those of slot 0 of two kinds of connection.
WAYS = {LOGO: ("LOGO! 8", "rack: 0, slot: 0"),
        SMART: ("S7-200 SMART", "rack: 0, slot: 0, connection: basic")}  # fmt: skip


@contextmanager
def station(remote_tsap: int) -> Iterator[FakePlc]:
    """V memory is DB1; the M area and questions for the CPU's state are not answered."""
    memory = bytearray(1_470)
    struct.pack_into(">hBf", memory, 10, -7, 0b1000, 81.5)
    with FakePlc({1: memory}, pdu_bytes=240, jobs=1, tsap=remote_tsap) as plc:
        plc.answers_state = False
        yield plc


def fields(count: int) -> list[dict[str, Any]]:
    named = [
        {"name": "nivel", "address": "VW10:INT"},
        {"name": "bomba", "address": "V12.3"},
        {"name": "temperatura", "address": "VD13:REAL"},
    ]
    # Wide apart, so that each is an item of its own.
    return [*named, *({"name": f"v{i}", "address": f"VB{100 + i * 30}"} for i in range(count))]


@pytest.mark.parametrize("remote", [LOGO, SMART])
def test_v_memory_is_read(remote: int) -> None:
    with station(remote) as plc:
        # Not even 20 items in one telegram, whatever the PDU would allow.
        plc.cut_items = 20
        given = {"id": "logo-01", "host": "127.0.0.1", "port": plc.port,
                 "tsap": {"local": "01.00", "remote": f"{remote >> 8:02X}.{remote & 255:02X}"},
                 "groups": [{"name": "g1", "scan": "100ms", "publish": "always",
                             "fields": fields(40)}]}  # fmt: skip
        with ReaderRig(given) as rig:
            rig.wait(lambda: rig.messages and rig.messages[-1]["quality"] == "good", 30)
            values = rig.messages[-1]["values"]
            assert (values["nivel"], values["bomba"], values["temperatura"]) == (-7, True, 81.5)
            assert len(values) == 43
            assert "bad" not in rig.messages[-1]
        assert plc.violations == []


@pytest.mark.parametrize("remote", [LOGO, SMART])
def test_probe_finds_the_tsap(remote: int) -> None:
    with station(remote) as plc:
        plc.denied_areas = {FLAGS}  # a station that gives V memory only
        done = subprocess.run(
            [*PLC_EDGE, "probe", "127.0.0.1", "--port", str(plc.port), "--db", "1", "--json",
             "--timeout", "0.5"],
            capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=os.environ,
        )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    label, config = WAYS[remote]
    assert label in report["connection"]
    assert report["config"] == config
    assert report["remote_tsap"] == f"{remote >> 8:02X}.{remote & 255:02X}"
    assert report["put_get"] is True
    assert report["blocks"] == [{"db": 1, "readable": True, "bytes": 1_470, "reason": None}]
