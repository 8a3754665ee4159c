"""Imports point one way: cli, processes -> s7, runtime -> bus; no process knows another."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.topology import PROCESSES
from tests.kit.common import ROOT

PROCESS_FOLDERS = {*PROCESSES, "alerts", "simulator"}
SHARED = {"runtime", "s7"}


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
                assert parts[1] in SHARED, f"{file} imports {module}"


@pytest.mark.parametrize("folder", sorted(PROCESS_FOLDERS))
def test_no_process_imports_another_or_the_command(folder: str) -> None:
    for file in files(f"services/{folder}"):
        for module in imports(file):
            parts = module.split(".")
            if parts[0] == "services" and len(parts) > 1:
                assert parts[1] in {*SHARED, folder}, f"{file} imports {module}"


def test_the_alert_core_is_pure() -> None:
    """No clock, socket or file; of ours, only itself and what is as pure."""
    allowed = {"__future__", "collections", "dataclasses", "functools", "hashlib", "json", "math",
               "typing"}  # fmt: skip
    for file in files("services/alerts/core"):
        for module in imports(file):
            pure = module.startswith(("services.alerts.core", "services.runtime.patterns"))
            assert pure or module.split(".")[0] in allowed, f"{file} imports {module}"


def test_a_reader_loads_nothing_heavy() -> None:
    heavy = "pydantic yaml prometheus_client asyncio starlette uvicorn apsw sqlite3 snap7 ssl numpy"
    code = (
        "import sys, services.reader.reader\n"
        f"print(*[h for h in {heavy.split()!r} if h in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
