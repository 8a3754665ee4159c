"""What of OPC UA needs no server: names of nodes, trust, our own certificate."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from services.protocols.found import Found, fields
from services.protocols.opcua import node_ref, security
from services.runtime.errors import PlcUnavailable
from services.s7.types import BadValue


@pytest.mark.parametrize(
    "text",
    [
        "i=2258",
        "nsu=http://www.siemens.com/simatic-s7-opcua;s=\"DB\".\"valor;x=1\"",
        "nsu=urn:a%3Bb%25c;i=7",
        "nsu=urn:a;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
        "nsu=urn:a;b=AAEC",
    ],
)  # fmt: skip
def test_a_node_reads_back_as_it_was_written(text: str) -> None:
    assert str(node_ref.parse(text)) == text


@given(st.text(min_size=1).filter(lambda t: t != node_ref.STANDARD_URI), st.text(min_size=1))
def test_any_uri_and_any_name_survive(uri: str, name: str) -> None:
    ref = node_ref.NodeRef(uri, "s", name)
    assert node_ref.parse(str(ref)) == ref


def test_a_name_that_looks_like_more_than_one_part_survives_a_browse() -> None:
    """`\"DB\".\"a;b=c\"` is a name that a PLC may have."""
    from asyncua import ua

    from services.protocols.opcua.browse import _identifier

    for name in ('"DB"."a;b=c"', "ns=3;s=x", "="):
        assert _identifier(ua.NodeId(name, 3)) == ("s", name)
    assert _identifier(ua.NodeId(85, 0)) == ("i", "85")


def test_no_time_is_not_the_year_1601() -> None:
    from asyncua import ua
    from asyncua.common.utils import Buffer
    from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

    from services.protocols.opcua.structures import Structures
    from services.protocols.opcua.values import plain

    structures = Structures()
    told = datetime(2026, 11, 30, tzinfo=UTC)
    for sent in (ua.DateTime(1601, 1, 1, tzinfo=UTC), [told, ua.DateTime(1601, 1, 1, tzinfo=UTC)]):
        wire = variant_to_binary(ua.Variant(sent, ua.VariantType.DateTime))
        came = variant_from_binary(Buffer(wire))
        with pytest.raises(BadValue, match="null"):
            plain(came, structures)
    assert plain(told, structures) == told


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ns=3;s=valor", "nsu="),
        ("valor", "nsu="),
        ("nsu=urn:a;i=x", "number"),
        ("nsu=urn:a;i=4294967296", "number"),
        ("nsu=urn:a;g=1", "GUID"),
        ("nsu=urn:a;b=*", "base64"),
        ("nsu=urn:a;", "nsu="),
    ],
)
def test_what_is_no_node_is_told_with_the_fix(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        node_ref.parse(text)


def test_members_are_steps() -> None:
    assert node_ref.parse_member("motor.trips[2].x") == ("motor", "trips", 2, "x")
    assert node_ref.parse_member("[0]") == (0,)
    for wrong in ("", ".a", "a..b", "a[", "a[x]"):
        with pytest.raises(ValueError):
            node_ref.parse_member(wrong)


def test_readers_that_start_together_have_one_certificate(tmp_path: Path) -> None:
    found: list[tuple[bytes, bytes]] = []
    threads = [
        threading.Thread(target=lambda: found.append(security.own(tmp_path, "planta")))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    file = security.own_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [f.name for f in file.parent.iterdir()] == [file.name]
    certificate = x509.load_der_x509_certificate(found[0][0])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [security.application_uri("planta")]
    assert security.uri_of(found[0][0]) == uris[0]
    assert security.own(tmp_path, "outro-nome") == found[0]


def test_only_the_confirmed_certificate_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(PlcUnavailable) as e:
        security.check_trusted(tmp_path, "p1", b"one")
    assert e.value.code == "opcua_not_trusted"
    security.trust(tmp_path, "p1", b"one")
    security.check_trusted(tmp_path, "p1", b"one")
    with pytest.raises(PlcUnavailable) as e:
        security.check_trusted(tmp_path, "p1", b"two")
    assert e.value.code == "opcua_certificate_changed"
    with pytest.raises(PlcUnavailable):
        security.check_trusted(tmp_path, "p2", b"one")


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_a_password_is_not_sent_readable(mode: str) -> None:
    """Some servers ask for it so: then the channel must encrypt."""
    from asyncua import ua

    from services.protocols.opcua import connect

    client = connect._Client("opc.tcp://127.0.0.1:1")
    client.security_policy.Mode = ua.MessageSecurityMode[mode]
    token = ua.UserTokenPolicy(TokenType=ua.UserTokenType.UserName)
    token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
    client._policy_ids = [token]
    sent = ua.ActivateSessionParameters()
    if mode == "Sign":
        with pytest.raises(PlcUnavailable, match="sign_and_encrypt") as caught:
            client._add_user_auth(sent, "edge", "segredo")
        assert caught.value.code == "opcua_password_in_clear"
    else:
        client._add_user_auth(sent, "edge", "segredo")
    assert (b"segredo" in str(sent).encode()) == (mode != "Sign")


def test_a_fingerprint_may_be_typed_in_any_form() -> None:
    shown = security.fingerprint(b"x")
    for text in (shown, shown.lower(), shown.replace(":", ""), shown.replace(":", " ")):
        assert security.is_same(text, b"x")
    assert not security.is_same(shown[:-1], b"x")
    assert not security.is_same("", b"x")


class _Described:
    """A server that tells one structure: an Int32 ``a``."""

    def __init__(self, kind: int) -> None:
        from asyncua import ua

        field = ua.StructureField(Name="a", DataType=ua.NodeId(6), ValueRank=-1)
        encoding = ua.NodeId(2, 2)
        self.definition = ua.StructureDefinition(
            DefaultEncodingId=encoding, StructureType=ua.StructureType(kind), Fields=[field]
        )

    def get_node(self, _: object) -> _Described:
        return self

    async def read_data_type_definition(self) -> object:
        return self.definition


@pytest.mark.parametrize(
    ("kind", "body", "word"),
    [
        (0, b"\x07\0\0\0", ""),
        (0, b"\x07\0\0", "bad_structure"),
        (0, b"\x07\0\0\0\x09", "bad_structure"),  # another program's, that has one member more
        (3, b"\x07\0\0\0", "unknown_structure"),  # its members may be of other types
    ],
)
def test_a_structure_is_read_to_its_end(kind: int, body: bytes, word: str) -> None:
    from asyncua import ua

    from services.protocols.opcua.structures import Structures

    structures = Structures()
    asyncio.run(structures.learn(_Described(kind), ua.NodeId(1, 2)))
    found = ua.ExtensionObject(TypeId=ua.NodeId(2, 2), Body=body)
    if word:
        with pytest.raises(BadValue, match=word):
            structures.decode(found)
    else:
        assert structures.decode(found) == {"a": 7}


def test_a_member_whose_type_the_server_does_not_tell_ends_no_connection() -> None:
    from asyncua import ua

    from services.protocols.opcua.structures import Structures

    class Silent(_Described):
        async def get_referenced_nodes(self, **_: object) -> object:
            raise ua.uaerrors.BadUserAccessDenied

    server, structures = Silent(0), Structures()
    server.definition.Fields[0].DataType = ua.NodeId(77, 2)
    asyncio.run(structures.learn(server, ua.NodeId(1, 2)))
    with pytest.raises(BadValue, match="unknown_structure"):
        structures.decode(ua.ExtensionObject(TypeId=ua.NodeId(2, 2), Body=b"1234"))


def test_fields_of_a_browse_have_each_a_name_of_its_own() -> None:
    found = [Found(p, {"node": p}, "INT") for p in ("a b", "a/b", "é", "")]
    found.append(Found("x", {"node": "x"}, why="no type"))
    assert [f["name"] for f in fields(found)] == ["a_b", "a_b_2", "é", "value"]
