"""Imports point one way: cli, processes -> consumer, infra, protocols -> s7, runtime -> bus, and no
process knows another.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.topology import PROCESSES
from tests.kit.common import ROOT

PROCESS_FOLDERS = {*PROCESSES, "simulator"}
# Shared folder -> the folders of services that it may import besides itself.
SHARED = {
    "runtime": {"s7", "protocols"},
    "s7": {"runtime"},
    "protocols": {"opcua", "s7", "runtime"},
    "consumer": {"runtime", "s7"},
    "history": set(),
    "infra": {"runtime", "s7"},
    "mqtt": {"consumer", "runtime"},
    "opcua": {"runtime"},
}
# Simulated boxes are put together from the parts of real ones.
ASSEMBLES = {"simulator": ("services/simulator/fleet", {"reader", "publisher", "store_forward"})}
# The centre's processes share its database, which is the control plane's.
SAME_DATABASE = {"meter": {"control_plane"}}


def imports(file: Path) -> Iterator[str]:
    """Every module a file imports: absolute, relative, inside functions, by import_module."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(p for p in (base, node.module or "") if p)
            yield module
            yield from (f"{module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            if name.endswith(("import_module", "__import__")):
                yield ast.unparse(node.args[0]).strip("f'\"")


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def test_bus_knows_nothing_of_services() -> None:
    for file in files("bus"):
        assert not [m for m in imports(file) if m.split(".")[0] == "services"], file


@pytest.mark.parametrize("folder", sorted(SHARED))
def test_shared_code_knows_no_process_and_no_command(folder: str) -> None:
    for file in files(f"services/{folder}"):
        for module in imports(file):
            parts = module.split(".")
            if parts[0] == "services" and len(parts) > 1:
                assert parts[1] in {folder, *SHARED[folder]}, f"{file} imports {module}"


@pytest.mark.parametrize("folder", sorted(PROCESS_FOLDERS))
def test_no_process_imports_another_or_the_command(folder: str) -> None:
    place, parts_of = ASSEMBLES.get(folder, ("", set()))
    for file in files(f"services/{folder}"):
        assembled = parts_of if place and file.is_relative_to(ROOT / place) else set()
        for module in imports(file):
            parts = module.split(".")
            if parts[0] == "services" and len(parts) > 1:
                known = {*SHARED, folder, *SAME_DATABASE.get(folder, ()), *assembled}
                assert parts[1] in known, f"{file} imports {module}"


def test_the_configuration_knows_models_of_protocols_and_readers_know_none() -> None:
    """What all of ``plc-edge`` loads holds no library of a protocol, a reader no pydantic."""
    for folder in ("runtime", "s7", "simulator", "reader"):
        for file in files(f"services/{folder}"):
            for module in imports(file):
                parts = module.split(".")
                if parts[:2] == ["services", "protocols"] and len(parts) > 3:
                    assert (parts[3] == "model") == (folder != "reader"), f"{file}: {module}"


def test_the_alert_core_is_pure() -> None:
    """No clock, socket or file; of ours, only itself and what is as pure."""
    allowed = {"__future__", "collections", "dataclasses", "datetime", "functools", "hashlib",
               "json", "math", "typing"}  # fmt: skip
    for file in files("services/alerts/core"):
        for module in imports(file):
            pure = module.startswith(("services.alerts.core", "services.runtime.patterns"))
            assert pure or module.split(".")[0] in allowed, f"{file} imports {module}"


def test_the_fleet_core_is_pure() -> None:
    """As pure: what to do next is decided without looking."""
    allowed = {"__future__", "collections", "dataclasses", "typing"}
    for file in files("services/fleet/core"):
        for module in imports(file):
            pure = module.startswith("services.fleet.core")
            assert pure or module.split(".")[0] in allowed, f"{file} imports {module}"


def test_no_module_imports_itself_by_a_detour() -> None:
    """At module level, in functions and for the type checker alike: a circle is two modules that
    are one, whatever the interpreter makes of it.
    """
    modules = {
        ".".join(p for p in f.relative_to(ROOT).with_suffix("").parts if p != "__init__"): f
        for f in files("bus", "services")
    }
    edges = {name: {m for m in imports(f) if m in modules} for name, f in modules.items()}
    assert sum(map(len, edges.values())) > len(modules), "no imports were found"
    circles = [name for name in modules if name in reached(edges, name)]
    assert not circles, f"these are in a circle: {circles}"


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """Every module that ``start`` imports, directly or by others."""
    seen: set[str] = set()
    todo = set(edges[start])
    while todo:
        module = todo.pop()
        seen.add(module)
        todo |= edges[module] - seen
    return seen


def test_a_circle_is_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert [m for m in edges if m in reached(edges, m)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "services.reader.reader, services.protocols.s7.source",
            "pydantic yaml prometheus_client asyncio starlette uvicorn apsw sqlite3 snap7 ssl"
            " numpy asyncua s7commplus services.protocols.threaded",
        ),
        (
            "services.reader.reader, services.protocols.opcua.source",
            "pydantic yaml prometheus_client starlette uvicorn apsw snap7 numpy s7commplus",
        ),
        (
            "services.reader.reader, services.protocols.s7plus.source",
            "pydantic yaml prometheus_client starlette uvicorn apsw sqlite3 snap7 numpy asyncua",
        ),
        (
            # All of `plc-edge`, which must start for those who have no such PLC.
            "services.cli.check, services.cli.browse, services.cli.trust, services.cli.doctor,"
            " services.cli.probe",
            "asyncua s7commplus",
        ),
        (
            "services.fleet.agent",
            "pydantic yaml prometheus_client asyncio starlette uvicorn apsw sqlite3 snap7"
            " cryptography supervisor",
        ),
    ],
)
def test_a_process_loads_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}\nprint(*[h for h in {heavy.split()!r} if h in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
