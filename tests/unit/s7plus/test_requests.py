"""What is asked stays within what CPUs take, and nobody waits for ever."""

from __future__ import annotations

import socket
import time

import pytest

from services.protocols.s7plus.cpu import Cpu
from services.protocols.s7plus.plan import MAX_ITEMS, MAX_REQUEST_BYTES, Tag, make_plan, values_of
from services.runtime.errors import PlcUnavailable
from tests.kit import s7plus_wire as wire
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import NO_ACCESS, SymbolCpu, Var


def test_requests_are_as_small_as_cpus_want_them_and_tags_are_put_together_again() -> None:
    """The emulator hangs up on a longer request, as PLCSIM Advanced does."""
    few = [Var(f"v{n}", "REAL") for n in range(300)]
    arrays = [Var("lista", "INT[0..199]"), Var("bits", "BOOL[0..199]"), Var("q", "DTL[0..69]")]
    deep = Var("a", members=[Var("b", members=[Var("c", members=[Var("d", "LINT[0..49]")])])])
    plc = SymbolCpu({"B": [*few, *arrays, deep]}, max_request_bytes=MAX_REQUEST_BYTES)
    port = free_port()
    plc.start("127.0.0.1", port)
    dtl = bytes.fromhex("07e4031803162c172af99640")
    plc.set("B.lista", b"".join(n.to_bytes(2) for n in range(200)))
    plc.set("B.bits", bytes(n % 3 == 0 for n in range(200)))
    plc.set("B.q", dtl * 70)
    cpu = Cpu("127.0.0.1", port, {"tls": "off"}, 5.0)
    tree = cpu.tree()
    tags = [Tag(s, s, kind) for s, kind in tree.variables() if kind is not None]
    plan = make_plan(tree, tags, cpu.qualifier_version)
    assert all(len(r.pieces) <= MAX_ITEMS for r in plan.requests)
    assert len(plan.requests) <= 2 + (300 + 200 + 200 + 70 + 50) // MAX_ITEMS
    values, bad = values_of(plan, cpu.read(plan))
    assert not bad
    assert values["B.lista"] == list(range(200))
    assert values["B.bits"] == [n % 3 == 0 for n in range(200)]
    assert values["B.q"] == ["2020-03-24T22:44:23.721"] * 70


def test_an_array_that_fits_one_request_is_not_cut() -> None:
    plc = SymbolCpu({"B": [*[Var(f"v{n}", "INT") for n in range(40)], Var("a", "INT[1..20]")]})
    port = free_port()
    plc.start("127.0.0.1", port)
    cpu = Cpu("127.0.0.1", port, {"tls": "off"}, 5.0)
    tree = cpu.tree()
    tags = [Tag(s, s, kind) for s, kind in tree.variables() if kind is not None]
    plan = make_plan(tree, tags, cpu.qualifier_version)
    assert [len(r.pieces) for r in plan.requests] == [40, 20]


def test_a_single_byte_is_never_asked_for_alone() -> None:
    plc = SymbolCpu({"B": [Var("x", "BOOL"), Var("y", "INT")]})
    port = free_port()
    plc.start("127.0.0.1", port)
    plc.set("B.x", b"\1")
    cpu = Cpu("127.0.0.1", port, {"tls": "off"}, 5.0)
    for symbol, asked, value in (("B.x", 2, True), ("B.y", 1, 0)):
        kind = cpu.tree().find(symbol).member.type
        assert kind is not None
        plan = make_plan(cpu.tree(), [Tag("v", symbol, kind)], cpu.qualifier_version)
        assert [len(r.pieces) for r in plan.requests] == [asked]
        assert values_of(plan, cpu.read(plan)) == ({"v": value}, {})


def test_names_that_the_cpu_will_not_tell_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plc = SymbolCpu({"B": [Var("x", "BOOL")]})
    port = free_port()
    plc.start("127.0.0.1", port)
    cpu = Cpu("127.0.0.1", port, {"tls": "off"}, 5.0)
    head = plc._build_response_header
    refused = wire.unsigned(NO_ACCESS, 64) + bytes(8)
    monkeypatch.setattr(plc, "_handle_explore", lambda seq, _s, _d: head(0x04BB, seq) + refused)
    with pytest.raises(PlcUnavailable) as e:
        cpu.tree()
    assert e.value.code == "access_denied"
    assert "Access level" in e.value.message


@pytest.mark.parametrize("tls", ["off", "auto"])
def test_silence_ends_after_the_timeout(tls: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begin_s = time.monotonic()
        with pytest.raises(PlcUnavailable) as e:
            Cpu("127.0.0.1", server.getsockname()[1], {"tls": tls}, 0.3)
    assert e.value.code == "timeout"
    assert time.monotonic() - begin_s < 3
