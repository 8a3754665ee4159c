"""``read`` and ``doctor`` of a PLC of tags: by its reader's source, on a loop of its own."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.cli import doctor_plc
from services.cli.direct import Seen, batches
from services.cli.once import read_once
from services.cli.read import show
from services.protocols.line import Line
from services.protocols.tags import Change
from services.protocols.threaded import ThreadSource
from services.runtime.errors import PlcUnavailable
from services.runtime.site import Site
from tests.kit.toy_protocol import judge, plc

Serve = Callable[[str, Line], None]
FIELDS = [{"name": n, "node": f"n={n}", "type": "INT"} for n in "ab"]


@contextmanager
def speaking(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Iterator[None]:
    module: Any = ModuleType("services.protocols.toy.source")
    module.open_source = lambda process, user: ThreadSource(process, user, serve)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "services.protocols.toy", ModuleType("services.protocols.toy"))
        patch.setitem(sys.modules, module.__name__, module)
        yield


def site(folder: Path, mode: str, **more: Any) -> Site:
    group = {"name": "g1", "mode": mode, "fields": FIELDS}
    found, problems = judge(folder, plc(groups=[group], timeout="300ms", **more))
    assert problems == []
    return found


def answering(host: str, line: Line) -> None:
    line.connected("a test")
    line.event("warning", "not_encrypted", "anybody reads")
    line.changed(0, [Change("a", 1), Change("b", bad="no_such_node")])
    while not line.is_closed:
        if (group := line.asked(0.1)) is not None:
            line.read(group, {"a": 1}, {"b": "no_such_node"}, began_s=time.monotonic())


@pytest.mark.parametrize("mode", ["scan", "subscribe"])
def test_read(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = site(tmp_path, mode)
    (toy,) = box.config.plcs
    with speaking(monkeypatch, answering):
        seen = Seen(toy, batches(box, toy))
        seen.read(box)
    (batch,) = seen.batches
    assert [(r.field.name, r.address, show(r), r.bad) for r in batch.rows] == [
        ("a", "n=a", "1", ""),
        ("b", "n=b", "", "no_such_node"),
    ]
    (message,) = batch.messages(seen, "acme", "s1")
    assert (message["values"], message["bad"]) == ({"a": 1}, {"b": "no_such_node"})
    assert "db" not in message


def test_the_address_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = site(tmp_path, "scan", host=None, hosts=["h1", "h2"])

    def serve(host: str, line: Line) -> None:
        if host == "h1":
            raise PlcUnavailable("refused", "h1")
        answering(host, line)

    with speaking(monkeypatch, serve):
        assert read_once(box, box.config.plcs[0]).host == "h2"
        with pytest.raises(PlcUnavailable, match="h1"):
            read_once(box, box.config.plcs[0], "h1")


def test_who_is_silent_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        while not line.is_closed:
            time.sleep(0.05)

    with speaking(monkeypatch, serve), pytest.raises(PlcUnavailable) as e:
        read_once(site(tmp_path, "scan"), site(tmp_path, "scan").config.plcs[0])
    assert e.value.code == "timeout"


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        box = site(tmp_path, "scan", host="127.0.0.1", port=port)
        with speaking(monkeypatch, answering):
            found = [(f.level, f.code, f.text) for f in doctor_plc.check(box, box.config.plcs[0])]
    assert found == [
        ("ok", "connection", f"127.0.0.1:{port} toy, a test"),
        ("warning", "not_encrypted", "anybody reads"),
        ("error", "fields_refused", "1 of 2 fields have no value: b (no_such_node)"),
    ]


def test_doctor_of_a_stopped_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(host: str, line: Line) -> None:
        line.connected("")
        line.frozen("cpu_stop")
        while not line.is_closed:
            if (group := line.asked(0.1)) is not None:
                line.read(group, {"a": 1, "b": 2}, {}, began_s=time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        box = site(tmp_path, "scan", host="127.0.0.1", port=listening.getsockname()[1])
        with speaking(monkeypatch, serve):
            found = [(f.level, f.code) for f in doctor_plc.check(box, box.config.plcs[0])]
    # What a reader would tell as an event, doctor tells by itself, once.
    assert found == [("ok", "connection"), ("error", "cpu_stop"), ("ok", "read")]


def test_doctor_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    box = site(tmp_path, "scan", host="127.0.0.1", port=port)
    with speaking(monkeypatch, answering):
        (finding,) = doctor_plc.check(box, box.config.plcs[0])
    assert (finding.level, finding.code) == ("error", "refused")
