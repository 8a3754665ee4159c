"""Two servers that are not ours: every type, secured, with every policy and mode; what is no value
is `bad` with its reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from services.protocols.opcua import security
from tests.kit import delay_proxy
from tests.kit.opcua import EVERY_TYPE, NodeServer, opcua_plc, place, reading, trust
from tests.kit.reader_rig import ReaderRig

TYPES = {name: kind for name, (kind, _) in EVERY_TYPE.items()}
VALUES = {name: value for name, (_, value) in EVERY_TYPE.items()}
MODES = [
    ("Basic256Sha256", "sign_and_encrypt"),
    ("Basic256Sha256", "sign"),
    ("Aes256_Sha256_RsaPss", "sign_and_encrypt"),
    ("Aes256_Sha256_RsaPss", "sign"),
]


@pytest.mark.parametrize("mode", ["subscribe", "scan"])
@pytest.mark.parametrize("which", ["node_server", "milo_server"])
def test_every_type_is_right(which: str, mode: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(which)
    with reading(opcua_plc(server.port, TYPES, group={"mode": mode})) as rig:
        assert rig.messages[-1]["values"] == VALUES
        assert list(rig.messages[-1]["values"]) == list(TYPES)


@pytest.mark.parametrize(("policy", "mode"), MODES)
@pytest.mark.parametrize("which", ["node_server", "milo_server"])
def test_every_policy_and_mode(
    which: str, policy: str, mode: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "pw").write_text("segredo\n")
    server = request.getfixturevalue(which)
    account = {"username": "edge", "password_file": str(tmp_path / "pw")}
    security = {"policy": policy, "mode": mode}
    plc = opcua_plc(
        server.port, {"Int16": "INT"}, security=security, **(account if mode == "sign" else {})
    )
    with reading(plc) as rig:
        assert rig.messages[-1]["values"] == {"Int16": -32768}


def test_structures_are_read_by_their_members(node_server: NodeServer) -> None:
    members = {
        "speed": ("LREAL", 12.5),
        "running": ("BOOL", True),
        "name": ("WSTRING[254]", "Açúcar"),
        "total": ("LINT", "9223372036854775807"),
        "started": ("DTL", "2026-11-30T12:34:56.789"),
        "trips[1]": ("INT", 5),
    }
    plc = opcua_plc(node_server.port, {})
    plc["groups"][0]["fields"] = [
        {"name": f"m{n}", "node": place("drive"), "member": member, "type": kind}
        for n, (member, (kind, _)) in enumerate(members.items())
    ]
    with reading(plc) as rig:
        found = list(rig.messages[-1]["values"].values())
        assert found == [value for _, value in members.values()]
        node_server("drive", speed=99.5)
        rig.wait(lambda: rig.messages[-1]["values"]["m0"] == 99.5, 20)


def test_what_is_no_value_is_bad_with_its_reason(node_server: NodeServer) -> None:
    fields = {
        "Int16": "INT", "nan": "REAL", "infinite": "LREAL", "nowhere": "INT", "drive": "REAL",
        "UInt64": "REAL",
    }  # fmt: skip
    with reading(opcua_plc(node_server.port, fields)) as rig:
        assert rig.messages[-1]["values"] == {"Int16": -32768}
        assert rig.messages[-1]["bad"] == {
            "nan": "nan",
            "infinite": "infinity",
            "nowhere": "BadNodeIdUnknown",
            "drive": "is_structure",
            "UInt64": "type_differs",
        }


@pytest.mark.parametrize("mode", ["subscribe", "scan"])
def test_a_status_code_is_named(node_server: NodeServer, mode: str) -> None:
    plc = opcua_plc(node_server.port, {"Byte": "USINT", "Int16": "INT"}, group={"mode": mode})
    with reading(plc) as rig:
        bad = {"node": "Byte", "type": "Byte", "value": 7, "status": "BadSensorFailure"}
        node_server("set", values=[bad])
        rig.wait(lambda: rig.messages[-1].get("bad") == {"Byte": "BadSensorFailure"}, 20)
        assert "Byte" not in rig.messages[-1]["values"]
        node_server("set", values=[{"node": "Byte", "type": "Byte", "value": 255}])
        rig.wait(lambda: rig.messages[-1]["values"].get("Byte") == 255, 20)
        assert "bad" not in rig.messages[-1]


def test_a_namespace_has_no_fixed_number(node_server: NodeServer, tmp_path: Path) -> None:
    """The same layout against a server that counts its namespaces otherwise."""
    plc = opcua_plc(node_server.port, {"Int16": "INT"})
    with NodeServer(tmp_path, namespaces=3) as other:
        with reading(plc) as rig:
            assert rig.messages[-1]["values"] == {"Int16": -32768}
        with reading({**plc, "port": other.port}) as rig:
            assert rig.messages[-1]["values"] == {"Int16": -32768}


def test_a_server_that_refuses_large_requests_and_does_not_say_so(tmp_path: Path) -> None:
    limits = {"maxNodesPerRead": 7, "maxMonitoredItemsPerCall": 5, "maxNodesPerRegisterNodes": 6}
    fields = {f"n{n}": "LREAL" for n in range(100)}
    values = {f"n{n}": n for n in range(100)}
    with NodeServer(tmp_path, many=100, limits=limits, hideLimits=True) as server:
        for mode in ("subscribe", "scan"):
            with reading(opcua_plc(server.port, fields, group={"mode": mode})) as rig:
                assert rig.messages[-1]["values"] == values


def test_a_user_with_a_certificate(node_server: NodeServer, tmp_path: Path) -> None:
    certificate, key = security.own(tmp_path / "user", "operador")
    (tmp_path / "user.der").write_bytes(certificate)
    (tmp_path / "user.key.der").write_bytes(key)
    plc = opcua_plc(
        node_server.port,
        {"Int16": "INT"},
        user_certificate=str(tmp_path / "user.der"),
        user_key=str(tmp_path / "user.key.der"),
    )
    with reading(plc) as rig:
        assert rig.messages[-1]["values"] == {"Int16": -32768}


def test_many_groups_are_told_side_by_side(node_server: NodeServer) -> None:
    """More intervals than the server grants subscriptions."""
    plc = opcua_plc(node_server.port, {"Int16": "INT"})
    (group,) = plc["groups"]
    plc["groups"] = [{**group, "name": f"g{n:02d}", "scan": f"{200 + n % 12}ms"} for n in range(20)]
    value = {"node": "Int16", "type": "Int16"}
    try:
        with reading(plc) as rig:
            node_server("set", values=[{**value, "value": 7}])

            def told() -> set[str]:
                return {m["group"] for m in rig.messages if m["values"].get("Int16") == 7}

            rig.wait(lambda: len(told()) == 20, 30)
    finally:
        node_server("set", values=[{**value, "value": -32768}])


def test_a_server_that_is_suspended_gives_uncertain_values(node_server: NodeServer) -> None:
    with reading(opcua_plc(node_server.port, {"Int16": "INT"})) as rig:
        try:
            node_server("state", state="Suspended")
            rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "server_suspended"}, 30)
            assert rig.messages[-1]["quality"] == "uncertain"
        finally:
            node_server("state", state="Running")
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 30)


@pytest.mark.parametrize("mode", ["subscribe", "scan"])
def test_the_first_values_of_a_suspended_server_are_uncertain(
    node_server: NodeServer, mode: str
) -> None:
    rig = ReaderRig(opcua_plc(node_server.port, {"Int16": "INT"}, group={"mode": mode}))
    trust(rig)
    node_server("state", state="Suspended")
    try:
        with rig:
            # Of a subscription the very first says that nobody knows what was before.
            suspended = {"*": "server_suspended"}
            rig.wait(lambda: any(m.get("bad") == suspended for m in rig.messages), 30)
            read = [m for m in rig.messages if m["values"]]
            assert {m["quality"] for m in read} == {"uncertain"}
            assert mode == "subscribe" or read[0]["bad"] == suspended
    finally:
        node_server("state", state="Running")


def test_many_small_requests_may_take_longer_than_one_answer(tmp_path: Path) -> None:
    fields = {f"n{n}": "LREAL" for n in range(100)}
    with NodeServer(tmp_path, many=100, limits={"maxNodesPerRead": 5}) as server:
        port = delay_proxy.serve(server.port, 0.04)  # 20 requests of 80 ms
        group = {"mode": "scan", "scan": "3s"}
        with reading(opcua_plc(port, fields, timeout="1s", group=group)) as rig:
            assert rig.messages[-1]["latency_ms"] > 1_000
            rig.wait(lambda: rig.messages[-1]["values"]["n99"] == 99, 20)


def test_a_server_that_gives_less_than_asked_is_told(node_server: NodeServer) -> None:
    group = {"sampling": "10ms", "queue": 10_000}
    with reading(opcua_plc(node_server.port, {"Int16": "INT"}, group=group)) as rig:
        rig.service.wait_said("1 nodes are sampled every 50 ms")
        rig.service.wait_said("looked at every 50 ms")


@pytest.mark.parametrize("mode", ["subscribe", "scan"])
def test_a_node_that_comes_later_is_read_then(node_server: NodeServer, mode: str) -> None:
    name = f"late-{mode}"
    plc = opcua_plc(node_server.port, {"Int16": "INT", name: "INT"}, group={"mode": mode})
    with reading(plc) as rig:
        assert rig.messages[-1]["bad"] == {name: "BadNodeIdUnknown"}
        node_server("add", node=name, type="Int16", value=9)
        rig.wait(lambda: rig.messages[-1]["values"].get(name) == 9, 45)
        assert "bad" not in rig.messages[-1]
