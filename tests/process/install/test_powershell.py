"""The technician's PowerShell scripts: their syntax (by a grammar; no PowerShell runs here), their
encoding, and that none takes a secret as a parameter."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

from tests.kit.common import free_ports
from tests.kit.simulator import Simulator

SCRIPTS = sorted((Path(__file__).resolve().parents[3] / "deploy" / "scripts").glob("*.ps1"))
LANGUAGE = tree_sitter.Language(tree_sitter_powershell.language())
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)


def errors(source: bytes) -> list[str]:
    """Where the grammar does not fit, with the text that it stumbles over."""

    def walk(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
        if node.type == "ERROR" or node.is_missing:
            yield node
        for child in node.children:
            yield from walk(child)

    tree = tree_sitter.Parser(LANGUAGE).parse(source)
    return [
        f"line {n.start_point[0] + 1}: {source[n.start_byte : n.end_byte][:60]!r}"
        for n in walk(tree.root_node)
    ]


def test_the_parser_finds_errors() -> None:
    assert errors(b"if ($x { exit 1 }\n")
    assert not errors(b"if ($x) { exit 1 }\n")


def test_all_are_there() -> None:
    names = {s.stem for s in SCRIPTS}
    assert names == {
        "Get-PontosRecentes",
        "New-TokensInflux",
        "PlcEdge.Comum",
        "Send-MensagemTeste",
        "Test-Broker",
        "Test-Clp",
        "Test-Grafana",
    }


@each
def test_syntax(script: Path) -> None:
    raw = script.read_bytes()
    # Windows PowerShell 5.1 reads a file without this mark as ANSI and breaks every accent.
    assert raw.startswith(b"\xef\xbb\xbf")
    assert errors(raw[3:]) == []


@each
def test_no_secret_is_a_parameter(script: Path) -> None:
    if script.stem == "PlcEdge.Comum":
        return
    text = script.read_text("utf-8-sig")
    block = text[text.index("param(") : text.index("PlcEdge.Comum.ps1")]
    for name in re.findall(r"\$(\w+)", block):
        assert not re.match(r"(?i)(senha|token|password|secret|segredo)", name), name


@each
def test_help_names_every_parameter(script: Path) -> None:
    text = script.read_text("utf-8-sig")
    if script.stem == "PlcEdge.Comum":
        return
    help_text = text[: text.index("#>")]
    assert ".SYNOPSIS" in help_text
    assert ".EXAMPLE" in help_text
    block = text[text.index("param(\n") : text.index("\n)\n")]
    for name in re.findall(r"\]\$(\w+)", block):
        assert f".PARAMETER {name}\n" in help_text, name


def test_the_telegrams_of_test_clp_open_a_session() -> None:
    """What cannot be run here can at least be sent."""
    text = next(s for s in SCRIPTS if s.stem == "Test-Clp").read_text("utf-8-sig")
    telegrams = [
        bytes(int(n, 0) for n in found.replace("$tsap", "1").split(","))
        for found in re.findall(r"(?m)\[byte\[\]\]\$pedido = (.+)$", text)
    ]
    (port,) = free_ports(1)
    group = {"name": "db1", "db": 1, "scan": "1s", "fields": [{"name": "x", "address": "DB1.DBW0"}]}
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": port, "groups": [group]}
    with (
        Simulator({"site": "teste", "locatario": "acme", "plcs": [plc]}),
        socket.create_connection(("127.0.0.1", port), 5) as s,
    ):
        s.settimeout(5)
        s.sendall(telegrams[0])
        assert s.recv(1_000)[5] == 0xD0  # connection confirm
        s.sendall(telegrams[1])
        answer = s.recv(1_000)[4:]
        assert (answer[4], answer[13:15]) == (3, b"\0\0")
        assert int.from_bytes(answer[21:23]) == 480  # what the simulator grants
