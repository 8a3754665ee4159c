"""A tenant's rules, receivers and routes by the API, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.centre import BOX_CONFIG, DATABASES, Centre, Reply

ACME = "/v1/tenants/acme"
HIGH = {"type": "threshold", "where": {"plc": "clp-1", "field": "a"}, "above": 80, "for": "30s"}
HOOK = {"type": "webhook", "url": "https://avisos.example/caminho", "secret": "chave"}


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as centre:
        yield centre


@pytest.fixture
def acme(centre: Centre) -> Iterator[Centre]:
    """A tenant, made anew, with a box whose configuration is kept."""
    centre.tenant("acme")
    yaml = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan="1s")
    centre.make(f"{ACME}/sites/caixa-1/configs", {"yaml": yaml})
    yield centre
    assert centre.call("DELETE", ACME).status == 200
    assert centre.call("POST", f"{ACME}/purge").status == 204
    assert centre.faults() == []


def put(centre: Centre, what: str, name: str, spec: Any, **headers: str) -> Reply:
    return centre.call("PUT", f"{ACME}/{what}/{name}", spec, headers=headers)


def problems(reply: Reply) -> list[tuple[str, str]]:
    assert reply.status == 422, reply
    return [(p["key"], p["hint"]) for p in reply.body["problems"]]


def test_a_rule_is_made_read_changed_and_removed(acme: Centre) -> None:
    made = put(acme, "rules", "alto", HIGH)
    assert (made.status, made.headers["location"]) == (201, f"{ACME}/rules/alto")
    assert made.body["spec"] == HIGH, "as it was written: 30s is no 30.0"
    assert made.body["warnings"] == []
    tag = made.headers["etag"]
    changed = put(acme, "rules", "alto", {**HIGH, "above": 70}, **{"if-match": tag})
    assert (changed.status, changed.body["spec"]["above"]) == (200, 70)
    assert put(acme, "rules", "alto", HIGH, **{"if-match": tag}).status == 412
    assert put(acme, "rules", "novo", HIGH, **{"if-match": "*"}).status == 412
    got = acme.call("GET", f"{ACME}/rules/alto")
    assert (got.body["spec"]["above"], got.headers["etag"]) == (70, changed.headers["etag"])
    for name in ("baixo", "cheio"):
        put(acme, "rules", name, {**HIGH, "name": name})
    names = []
    cursor = ""
    while True:
        part = acme.call("GET", f"{ACME}/rules?limit=1{cursor}").body
        names += [p["name"] for p in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert names == ["alto", "baixo", "cheio"]
    assert acme.call("DELETE", f"{ACME}/rules/alto").status == 204
    assert acme.call("GET", f"{ACME}/rules/alto").status == 404
    audit = acme.call("GET", f"{ACME}/audit?limit=4").body["items"]
    actions = [row["action"] for row in audit]
    assert actions == ["rule.delete", "rule.put", "rule.put", "rule.put"]
    assert audit[-1]["before"]["spec"]["above"] == 80


@pytest.mark.parametrize(
    ("change", "key", "hint"),
    [
        ({"where": {"plc": "clp-1", "field": "aa"}}, "where.field", "did you mean `a`?"),
        ({"where": {"plc": "clp-2", "field": "a"}}, "where.plc", "did you mean `clp-1`?"),
        ({"where": {"locatario": "outra", "field": "a"}}, "where.locatario", ""),
        ({"abov": 80}, "abov", "did you mean `above`?"),
        ({"returns_at": 90}, "returns_at", "give a lower value"),
        ({"for": "500ms"}, "for", "lengthen it, or scan faster"),
        ({"route": "plantao"}, "route", None),
        ({"message": "{valor}"}, "message", "did you mean `value`?"),
        ({"type": "limite"}, "", None),
        ({"name": "outro"}, "name", ""),
        ({"message": "\x00"}, "", ""),
        ({"message": "\ud800"}, "", ""),
        ({"type": "threshold", "above": None, "equal": 10**30}, "", ""),
        ({"for": "9" * 400 + "d"}, "for", None),
    ],
)
def test_the_boxs_check_refuses_with_key_and_fix(
    acme: Centre, change: dict[str, Any], key: str, hint: str | None
) -> None:
    put(acme, "receivers", "fone", HOOK)
    found = problems(put(acme, "rules", "alto", {**HIGH, **change}))
    assert key in dict(found)
    if hint:
        assert dict(found)[key] == hint
    assert acme.call("GET", f"{ACME}/rules/alto").status == 404
    if "name" not in change:
        body = {"rules": [{**HIGH, "name": "bom"}, {**HIGH, "name": "alto", **change}]}
        reply = acme.call("POST", f"{ACME}/rules/check", body)
        assert f"rules[1].{key}" in dict(problems(reply)) or not key


def test_of_a_box_that_nobody_here_knows_it_only_warns(acme: Centre) -> None:
    acme.make(f"{ACME}/devices", {"id": "clp-2", "site": "caixa-1"})
    spec = {**HIGH, "where": {"plc": "clp-2", "field": "pressao"}}
    made = put(acme, "rules", "alto", spec)
    assert made.status == 201
    assert "clp-2" in made.body["warnings"][0]
    checked = acme.call("POST", f"{ACME}/rules/check", {"rules": [{**spec, "name": "alto"}]})
    assert checked.body["warnings"] == made.body["warnings"]


def test_receivers_keep_their_secrets_to_themselves(acme: Centre) -> None:
    made = put(acme, "receivers", "fone", HOOK)
    assert made.body["spec"] == {"type": "webhook", "url": "https://avisos.example/…"}
    assert made.body["secrets"] == ["secret", "url"]
    # What was shown is not taken for an address, and nothing of the centre's machine is named.
    shown = problems(put(acme, "receivers", "fone", made.body["spec"]))
    assert shown == [("url", "give the whole address")]
    for key, value in (("ca", "/etc/shadow"), ("secret_file", "/etc/shadow")):
        body = {"type": "webhook", "url": "https://a.example/", key: value}
        assert key in dict(problems(put(acme, "receivers", "fone", body)))
    for url in ("http://127.0.0.1/", "http://169.254.169.254/x", "http://[::1]:8443/",
                "http://[64:ff9b::7f00:1]/", "http://[::ffff:10.0.0.1]/"):  # fmt: skip
        private = problems(put(acme, "receivers", "fone", {"type": "webhook", "url": url}))
        assert private == [("url", "only where central.yaml says `alert_receivers: any`")]
    # A secret that is left out is gone: none may be sent elsewhere by who does not know it.
    other = put(acme, "receivers", "fone", {"type": "webhook", "url": "https://b.example/"})
    assert other.body["secrets"] == ["url"]
    mail = {"type": "email", "host": "smtp.example", "from": "a@b.example", "to": ["c@d.example"],
            "username": "u", "password": "senha-dela"}  # fmt: skip
    assert put(acme, "receivers", "correio", mail).status == 201
    listed = acme.call("GET", f"{ACME}/receivers")
    assert "senha-dela" not in str(listed.body)
    assert listed.body["items"][0]["spec"]["to"] == ["c@d.example"]


def test_what_is_used_stays(acme: Centre) -> None:
    put(acme, "receivers", "fone", HOOK)
    assert problems(put(acme, "routes", "noite", {"receivers": ["fon"]}))[0][1]
    assert put(acme, "routes", "noite", {"receivers": ["fone"]}).status == 201
    assert put(acme, "rules", "alto", {**HIGH, "route": "noite"}).status == 201
    for what in ("receivers/fone", "routes/noite"):
        reply = acme.call("DELETE", f"{ACME}/{what}")
        assert (reply.status, reply.body["type"]) == (409, "urn:plc-edge:problem:in-use")
    for what in ("rules/alto", "routes/noite", "receivers/fone"):
        assert acme.call("DELETE", f"{ACME}/{what}").status == 204


def test_without_an_engine_rules_are_kept_and_nothing_rings(acme: Centre) -> None:
    put(acme, "rules", "alto", HIGH)
    for path in ("alerts", "alerts/history"):
        reply = acme.call("GET", f"{ACME}/{path}")
        assert (reply.status, reply.body["type"]) == (409, "urn:plc-edge:problem:no-alerts")
    reply = acme.call("POST", f"{ACME}/alerts/ack", {"rule": "alto"})
    assert reply.status == 409


RULES = """\
receivers:
  - {name: fone, type: webhook, url: "https://avisos.example/x", secret_file: chave}
routes: {noite: [fone]}
rules:
  - {name: alto, type: threshold, where: {field: a}, above: 80, route: noite}
"""


def test_the_command_sends_a_file_and_lists(acme: Centre, tmp_path: Path) -> None:
    file = tmp_path / "regras.yaml"
    file.write_text(RULES)
    (tmp_path / "chave").write_text("chave-secreta\n")
    done = acme.cli("rules", "put", "acme", str(file))
    assert done.returncode == 0, done.stderr
    assert acme.call("GET", f"{ACME}/receivers/fone").body["secrets"] == ["secret", "url"]
    done = acme.cli("rules", "check", "acme", str(file))
    assert "rules: 1" in done.stdout, done.stderr
    for what, word in (("rules", "alto"), ("receivers", "avisos.example"), ("routes", "fone")):
        done = acme.cli(what, "list", "acme")
        assert word in done.stdout, done.stderr
        assert "chave-secreta" not in done.stdout
    file.write_text(RULES.replace("field: a", "field: aaa"))
    done = acme.cli("rules", "check", "acme", str(file))
    assert done.returncode == 1
    assert "one of: a, b" in done.stderr
    assert acme.cli("receivers", "delete", "acme", "fone").returncode == 1
    assert acme.cli("rules", "delete", "acme", "alto").returncode == 0
    done = acme.cli("alerts", "list", "acme")
    assert done.returncode == 1
    assert "alerts: true" in done.stderr
