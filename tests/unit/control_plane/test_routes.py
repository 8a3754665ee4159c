"""What every route has in common, read from the code."""

from __future__ import annotations

import ast

import pytest

from tests.kit.common import ROOT

FILES = sorted((ROOT / "services" / "control_plane" / "routes").glob("*.py"))


def routes() -> list[tuple[str, ast.FunctionDef]]:
    """Every function that is registered under a path."""
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(d, ast.Call)
                and isinstance(d.func, ast.Attribute)
                and ast.unparse(d.func.value) in ("router", "platform", "boxes")
                for d in node.decorator_list
            ):
                found.append((file.name, node))
    return found


def test_there_are_routes() -> None:
    assert len(routes()) > 35


@pytest.mark.parametrize(("file", "route"), routes(), ids=lambda v: getattr(v, "name", v))
def test_a_route_says_who_may_and_whether_it_changes_something(
    file: str, route: ast.FunctionDef
) -> None:
    """``reads`` and ``writes`` are the only ways to the database (services/control_plane/unit.py),
    and ``opens`` where no key is asked for; what is not a GET is written through the one that keeps
    the audit.
    """
    http, guard = (ast.unparse(d.func) for d in route.decorator_list if isinstance(d, ast.Call))
    if route.name == "claim_box":
        assert guard == "opens", "a box without a certificate has nothing to show but its code"
        return
    assert guard in ("reads", "writes"), file
    if http.endswith(".get"):
        assert guard == "reads"
    elif guard == "reads":
        assert route.name == "check_config", "it changes nothing, and has a body"
    else:
        unrecorded = "unrecorded" in ast.unparse(route)
        assert unrecorded == (route.name == "put_report"), "its change must be in the audit"
    if "{tenant_id}" in ast.unparse(route.decorator_list[0]):
        assert "tenant_id" in {a.arg for a in route.args.args}
