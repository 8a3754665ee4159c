"""The one table of wires and processes."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

from bus import topology
from tests.kit.common import ROOT


def test_topics_end_so_that_p1_does_not_match_p10() -> None:
    assert not topology.topic("scan", "p10").startswith(topology.topic("scan", "p1"))
    assert topology.topic("scan", "p1").startswith(topology.topic("scan"))


def test_an_ipc_path_that_no_socket_holds_is_refused_by_name() -> None:
    runtime = Path("/tmp") / ("x" * 100)
    with pytest.raises(ValueError, match=r"shorter paths\.runtime"):
        topology.endpoint(runtime, "dispatch", "central")
    fits = Path("/" + "x" * (topology.IPC_PATH_MAX_BYTES - len("//keep.sock")))
    assert topology.endpoint(fits, "keep").startswith("ipc:///x")


@pytest.mark.parametrize(("folder", "item"), [("reader", ""), ("metrics", "x")])
def test_a_process_is_spelled_with_its_item_or_without(folder: str, item: str) -> None:
    with pytest.raises(ValueError, match=folder):
        topology.process_name(folder, item)


def test_process_prefixes_tell_processes_apart() -> None:
    prefixes = [p.prefix for p in topology.PROCESSES.values()]
    for one in prefixes:
        assert not any(other != one and other.startswith(one) for other in prefixes)


def test_every_process_has_its_folder() -> None:
    for folder in topology.PROCESSES:
        assert (ROOT / "services" / folder / "__main__.py").is_file()


CONFS = {"box": "supervisord.conf", "centre": "deploy/supervisord-central.conf"}


def conf(where: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(ROOT / CONFS[where])
    return parser


@pytest.mark.parametrize("where", CONFS)
def test_supervisord_conf_lists_the_processes_of_the_table(where: str) -> None:
    parser = conf(where)
    here = [p for p in topology.PROCESSES.values() if p.where in (where, "both")]
    programs = {s.removeprefix("program:") for s in parser.sections() if s.startswith("program:")}
    assert programs == {p.prefix for p in here if not p.rendered}
    text = (ROOT / CONFS[where]).read_text()
    for process in here:
        if process.per:
            assert f";   {process.prefix}-<{process.per}>" in text
        elif process.optional:
            assert f";   {process.prefix} " in text
        else:
            section = parser[f"program:{process.prefix}"]
            assert int(section["priority"]) == process.priority
            assert f"services.{process.folder} " in section["command"]


def test_the_rendered_programs_have_the_settings_of_supervisord_conf() -> None:
    from services.runtime.render import PROGRAM_COMMON

    rendered = configparser.RawConfigParser()
    rendered.read_string("[x]\n" + PROGRAM_COMMON)
    for where, names in (("box", ("metrics", "store_forward")), ("centre", ("control_plane",))):
        for name in names:
            section = dict(conf(where)[f"program:{name}"])
            del section["command"], section["priority"]
            assert section == dict(rendered["x"])


def test_nobody_else_opens_a_socket_or_names_an_endpoint() -> None:
    offenders = []
    for file in [*(ROOT / "services").rglob("*.py"), *(ROOT / "bus").rglob("*.py")]:
        text = file.read_text()
        if file.name not in ("sockets.py", "topology.py") and "ipc://" in text:
            offenders.append(f"{file}: ipc://")
        if file.name != "sockets.py":
            calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)]
            offenders += [
                f"{file}: zmq.Context"
                for n in calls
                if n.attr == "Context" and isinstance(n.value, ast.Name) and n.value.id == "zmq"
            ]
    assert not offenders
