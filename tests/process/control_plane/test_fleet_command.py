"""``plc-edge central sites …`` and ``rollout …`` as an operator types them."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.central_box import CentralBox
from tests.kit.centre import BOX_CONFIG, Centre


def test_claims_targets_and_rollouts_by_command() -> None:
    with Centre() as centre:

        def said(*words: str) -> Any:
            done = centre.cli(*words, "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        keys = centre.tenant("acme")
        box = CentralBox(centre, "acme", "caixa-1", keys["box"])
        for scan in ("10s", "5s", "2s"):
            text = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan=scan)
            centre.make(f"{box.path}/configs", {"yaml": text})

        claim = said("sites", "claim", "acme", "caixa-1", "--valid", "2d")
        assert box.claim(claim["code"]).status == 201
        shown = centre.cli("sites", "show", "acme", "caixa-1")
        assert "never heard of" in shown.stdout, shown
        assert said("sites", "target", "acme", "caixa-1", "1")["version"] == 1
        box.take_target(box.poll())
        problem = {"file": "config.yaml", "line": 8, "key": "plcs", "message": "is wrong"}
        box.report("drift", 1, problems=[problem], drift="-old\n+new\n", software="1.2.3")
        (listed,) = said("sites", "list", "acme")
        assert (listed["state"], listed["running"], listed["target"]) == ("drift", 1, 1)
        shown = centre.cli("sites", "show", "acme", "caixa-1")
        for words in ("state: drift", "clp-1 online", "config.yaml:8 plcs is wrong", "+new"):
            assert words in shown.stdout, shown
        both = said("sites", "show", "acme", "caixa-1")
        assert (both["report"]["running"], both["target"]["version"]) == (1, 1)
        box.report("applied", 1)

        made = said("rollout", "create", "acme", "--version", "caixa-1=2", "--comment", "nova")
        assert (made["state"], made["sites"][0]["version"]) == ("running", 2)
        assert said("rollout", "halt", "acme", made["id"])["state"] == "halted"
        assert said("rollout", "resume", "acme", made["id"])["state"] == "running"
        assert said("rollout", "rollback", "acme", made["id"])["state"] == "rolling_back"
        assert box.poll() is None, "it never took the new one"
        table = centre.cli("rollout", "list", "acme").stdout
        assert all(word in table for word in (made["id"], "1 of 1", "nova", "asked for")), table
        one = centre.cli("rollout", "show", "acme", made["id"]).stdout
        assert "caixa-1" in one

        wrong = centre.cli("rollout", "create", "acme", "--stages", "muito")
        assert (wrong.returncode, "10,50,100" in wrong.stderr) == (2, True)
        wrong = centre.cli("rollout", "create", "acme", "--stage", "caixa-9")
        assert (wrong.returncode, "there is no box caixa-9" in wrong.stderr) == (1, True)
        assert centre.cli("sites", "claim", "acme", "caixa-1", "--valid", "muito").returncode == 2
