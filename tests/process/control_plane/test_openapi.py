"""Schemathesis makes requests of the OpenAPI document, valid and not: none may fail on our side,
and every answer must be one that the document tells of.

``PLC_EDGE_SCHEMA_EXAMPLES=6`` makes so many of each kind and route, on both databases, and those of
every boundary besides: 5 minutes. Unasked it makes a few, for who has broken a route.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.centre import BOX_CONFIG, DATABASES, Centre

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
EXAMPLES = int(os.environ.get("PLC_EDGE_SCHEMA_EXAMPLES", "0"))
FEW = {"sqlite": 4, "postgresql": 1}
# Otherwise nearly every request would be of a tenant that is not there.
NAMES = """\
[parameters]
"path.tenant_id" = ["alvo-a", "alvo-b"]
"path.site_id" = ["caixa-1", "caixa-2"]
"path.device_id" = ["clp-1", "clp-2"]
"path.plan_id" = ["free", "meu"]
"path.version" = [1, 2]
"path.rollout_id" = ["ROLLOUT"]
"path.name" = ["alto", "plantao"]
"""
# What would leave the others without a tenant has one of its own.
ENDS = """
[[operations]]
include-method = "{method}"
include-path = "/v1/tenants/{{tenant_id}}{rest}"
parameters = {{ "path.tenant_id" = ["alvo-c"] }}
"""


@pytest.mark.parametrize("database", DATABASES)
def test_no_request_makes_it_fail(database: str, tmp_path: Path) -> None:
    with Centre(database) as centre:
        for tenant in ("alvo-a", "alvo-b", "alvo-c"):
            centre.tenant(tenant)
        text = BOX_CONFIG.format(site="caixa-1", tenant="alvo-a", plc="clp-1", scan="9s")
        centre.make("/v1/tenants/alvo-a/sites/caixa-1/configs", {"yaml": text})
        rollout = centre.make("/v1/tenants/alvo-a/rollouts", {"sites": "all"})["id"]
        ends = [("DELETE", ""), ("POST", "/suspend"), ("POST", "/purge")]
        own = "".join(ENDS.format(method=method, rest=rest) for method, rest in ends)
        (tmp_path / "schemathesis.toml").write_text(NAMES.replace("ROLLOUT", rollout) + own)
        phases = "examples,coverage,fuzzing" if EXAMPLES else "examples,fuzzing"
        done = subprocess.run(
            [
                *(f"{Path(sys.executable).parent}/st", "run", f"{centre.url}/openapi.json"),
                *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES or FEW[database])),
                *("--phases", phases, "--seed", "7", "--no-color"),
                *("--header", f"Authorization: Bearer {centre.key}", "--max-failures", "5"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
        assert centre.call("GET", "/v1/me").status == 200, "the operator's key is still there"
        assert centre.faults() == []
