"""A box gets its certificate with a code, and is known by it from then on: real TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.control_plane.fleet import ca
from services.control_plane.tables import Certificate
from services.runtime.clock import now_ms
from tests.kit.central_box import CentralBox, csr
from tests.kit.centre import DATABASES, Centre
from tests.kit.common import until
from tests.kit.pki import Ca


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param, tls=True) as running:
        yield running


def code_of(centre: Centre, tenant: str, **form: int) -> str:
    code: str = centre.make(f"/v1/tenants/{tenant}/sites/caixa-1/claims", form)["code"]
    return code


def box_of(centre: Centre, tenant: str) -> CentralBox:
    """A tenant with a claimed box."""
    centre.tenant(tenant)
    box = CentralBox(centre, tenant, "caixa-1")
    assert box.claim(code_of(centre, tenant)).status == 201
    return box


def refusal(reply: object) -> tuple[int, str]:
    status, body = reply[0], reply[1]  # type: ignore[index]
    return status, body["type"].rpartition(":")[2]


def test_a_claimed_box_is_known_by_its_certificate(centre: Centre) -> None:
    keys = centre.tenant("prensas")
    box = CentralBox(centre, "prensas", "caixa-1")
    assert refusal(box.call("GET", box.path)) == (401, "unauthenticated")
    code = code_of(centre, "prensas")
    assert len(code.replace("-", "")) * 5 == 100
    reply = box.claim(code.lower().replace("-", " "))
    assert reply.status == 201
    issued = reply.body
    assert (issued["tenant"], issued["site"]) == ("prensas", "caixa-1")
    leaf = x509.load_pem_x509_certificate(issued["certificate"].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(issued["ca"].encode()))
    assert leaf.subject.rfc4514_string() == "CN=prensas/caixa-1", "not what the request said"
    assert f"{leaf.serial_number:032x}" == issued["serial"]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 90
    assert leaf.public_key() == box.private.public_key()

    assert box.call("GET", box.path).body["id"] == "caixa-1"
    assert refusal(box.call("GET", "/v1/tenants/prensas")) == (403, "forbidden")
    listed = centre.call("GET", "/v1/tenants/prensas/credentials").body["items"]
    (own,) = [c for c in listed if c["kind"] == "certificate"]
    assert (own["serial"], own["role"], own["site"]) == (issued["serial"], "box", "caixa-1")
    assert own["expires_at"] == issued["not_after"]
    with_key = centre.call("GET", "/v1/me", key=keys["reader"])
    assert with_key.body["role"] == "reader", "keys work as before"


def test_a_code_works_once_and_a_lost_answer_is_given_again(centre: Centre) -> None:
    centre.tenant("uma-vez")
    code, box = code_of(centre, "uma-vez"), CentralBox(centre, "uma-vez", "caixa-1")
    first, again = box.claim(code), box.claim(code)
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    other = CentralBox(centre, "uma-vez", "caixa-1")
    assert refusal(other.claim(code)) == (410, "claim-used")
    assert box.call("GET", box.path).status == 200


def test_a_newer_code_voids_the_older_and_a_new_claim_the_older_box(centre: Centre) -> None:
    box = box_of(centre, "troca")
    old, new = code_of(centre, "troca"), code_of(centre, "troca")
    assert box.call("GET", box.path).status == 200, "a code alone changes nothing"
    spare = CentralBox(centre, "troca", "caixa-1")
    assert refusal(spare.claim(old)) == (403, "claim-refused")
    assert spare.claim(new).status == 201
    assert spare.call("GET", spare.path).status == 200
    assert refusal(box.call("GET", box.path)) == (401, "unauthenticated")


def test_requests_that_cannot_be_used(centre: Centre) -> None:
    centre.tenant("pedidos")
    code = code_of(centre, "pedidos")
    box = CentralBox(centre, "pedidos", "caixa-1")
    pem = csr(box.private)
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    for bad in (
        "",
        "nada",
        forged,
        csr(ec.generate_private_key(ec.SECP384R1())),
        csr(rsa.generate_private_key(65_537, 1_024)),
    ):
        reply = box.call("POST", "/v1/claim", {"code": code, "csr": bad})
        assert refusal(reply) == (422, "csr-refused"), bad[:40]
    box.private = rsa.generate_private_key(65_537, 2_048)
    assert box.claim(code).status == 201, "none of these has used the code up"
    assert box.call("GET", box.path).status == 200


def test_an_ended_code_and_one_of_a_suspended_tenant_say_the_same(centre: Centre) -> None:
    from services.control_plane.tables import Claim

    centre.tenant("fim")
    box = CentralBox(centre, "fim", "caixa-1")
    late = code_of(centre, "fim", valid_s=60)
    with centre.database.writing("fim") as session:
        for claim in session.query(Claim):
            claim.ends_ms = now_ms() - 1
    ended = box.claim(late)
    code = code_of(centre, "fim")
    centre.call("POST", "/v1/tenants/fim/suspend")
    suspended = box.claim(code)
    centre.call("POST", "/v1/tenants/fim/resume")
    assert ended.body == suspended.body
    assert refusal(ended) == (403, "claim-refused")
    assert box.claim(code).status == 201


@pytest.mark.parametrize("how", ["revoked", "deleted", "site deleted"])
def test_a_dead_certificate_is_refused_on_the_connection_that_is_open(
    centre: Centre, how: str
) -> None:
    tenant = f"morto-{how[0]}{len(how)}"
    box = box_of(centre, tenant)
    cert, key = sorted(centre.folder.glob(f"{tenant}-*"), reverse=True)
    context = ssl.create_default_context(cafile=str(centre.ca_file))
    context.load_cert_chain(cert, key)
    with closing(HTTPSConnection("localhost", centre.port, context=context, timeout=30)) as kept:
        kept.connect()
        kept.auto_open = 0  # this connection or none

        def status() -> int:
            kept.request("GET", box.path)
            answer = kept.getresponse()
            answer.read()
            return answer.status

        assert status() == 200
        base = f"/v1/tenants/{tenant}"
        if how == "revoked":
            (own,) = [
                c
                for c in centre.call("GET", f"{base}/credentials").body["items"]
                if c["kind"] == "certificate"
            ]
            rotated = centre.call("POST", f"{base}/credentials/{own['id']}/rotate", {})
            assert refusal(rotated) == (409, "certificate-renewal")
            assert centre.call("POST", f"{base}/credentials/{own['id']}/revoke").status == 200
        elif how == "deleted":
            assert centre.call("DELETE", base).status == 200
        else:
            assert centre.call("DELETE", f"{base}/devices/clp-1").status == 204
            assert centre.call("DELETE", f"{base}/sites/caixa-1").status == 204
        assert status() == 401
    assert refusal(box.call("GET", box.path)) == (401, "unauthenticated")
    if how == "deleted":
        assert centre.call("POST", f"{base}/purge").status == 204


def test_another_authoritys_certificate_gets_no_connection(centre: Centre, tmp_path: Path) -> None:
    box = box_of(centre, "forasteira")
    stranger = Ca(tmp_path, "stranger").issue("forasteira")
    with pytest.raises(urllib3.exceptions.HTTPError):
        centre.pool(*stranger).request("GET", f"{centre.url}{box.path}")
    # An authority of the very same name.
    own = x509.load_pem_x509_certificate(ca.certificate_file(centre.config.state).read_bytes())
    name = own.subject.rfc4514_string().removeprefix("CN=")
    twin = Ca(tmp_path, name).issue("forasteira")
    with pytest.raises(urllib3.exceptions.HTTPError):
        centre.pool(*twin).request("GET", f"{centre.url}{box.path}")
    # And one that nobody has issued: the leaf as an authority.
    assert box.call("GET", box.path).status == 200


def test_curl_with_the_certificate(centre: Centre) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "apt-get install curl"
    box = box_of(centre, "curl")
    cert, key = sorted(centre.folder.glob("curl-*"), reverse=True)
    ask = [curl, "--silent", "--cacert", str(centre.ca_file), f"{centre.url}{box.path}"]
    own = ["--cert", str(cert), "--key", str(key)]
    asked = subprocess.run([*ask, *own], capture_output=True, text=True, check=True)
    assert '"id":"caixa-1"' in asked.stdout
    without = subprocess.run(ask, capture_output=True, text=True, check=True)
    assert "unauthenticated" in without.stdout


def test_a_renewal_overlaps_until_the_new_one_is_used(centre: Centre) -> None:
    box = box_of(centre, "renova")
    assert box.report("applied").status == 200
    first = box.renew()
    assert first.status == 201
    # The answer was lost: the box asks again with another key, and nothing has ended meanwhile.
    second = box.renew()
    assert second.status == 201
    assert box.call("GET", box.path).status == 200
    again = box.call("POST", f"{box.path}/certificate", {"csr": csr(box.private)})
    assert (again.status, again.body) == (200, second.body)

    def ends() -> dict[str, int | None]:
        with centre.database.reading("renova") as session:
            return {c.serial: c.ends_ms for c in session.query(Certificate)}

    assert set(ends().values()) == {None}
    old_pool = box._pool
    box.take(second.body)
    assert box.call("GET", box.path).status == 200
    assert box.report("applied").status == 200
    found = ends()
    assert found.pop(second.body["serial"]) is None
    assert all(0 < (at or 0) - now_ms() <= 3_600_000 for at in found.values())
    assert old_pool.request("GET", f"{centre.url}{box.path}").status == 200, "for an hour"
    with centre.database.writing("renova") as session:
        for certificate in session.query(Certificate).filter(Certificate.ends_ms.is_not(None)):
            certificate.ends_ms = now_ms() - 1
    assert old_pool.request("GET", f"{centre.url}{box.path}").status == 401
    assert box.call("GET", box.path).status == 200
    (own,) = [
        c
        for c in centre.call("GET", "/v1/tenants/renova/credentials").body["items"]
        if c["kind"] == "certificate"
    ]
    assert own["serial"] == second.body["serial"]
    actions = [r["action"] for r in centre.call("GET", "/v1/tenants/renova/audit").body["items"]]
    assert actions.count("certificate.renew") == 2
    assert centre.faults() == []


def test_a_box_that_waits_is_let_go_when_its_certificate_dies(centre: Centre) -> None:
    """It is asked for its identity again before it is told anything."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.process.control_plane.test_targets import push

    box = box_of(centre, "espera")
    push(centre, "espera", 1)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(box.call, "GET", f"{box.path}/target?wait_s=20")
        begun_s = time.monotonic()
        until(lambda: time.monotonic() - begun_s > 0.5, 2, "it waits")
        (own,) = [
            c
            for c in centre.call("GET", "/v1/tenants/espera/credentials").body["items"]
            if c["kind"] == "certificate"
        ]
        centre.make(f"/v1/tenants/espera/credentials/{own['id']}/revoke", {})
        centre.make(f"{box.path}/target", {"version": 1})
        assert waiting.result(15).status == 401


def test_a_stranger_who_guesses_is_slowed_down() -> None:
    with Centre() as centre:
        centre.tenant("acme")
        box = CentralBox(centre, "acme", "caixa-1")
        code = code_of(centre, "acme")
        begun_s = time.monotonic()
        guesses = 0
        while (status := box.claim("0" * 20).status) == 403:
            guesses += 1
        assert status == 429
        # Ten at once, then one every six seconds.
        assert 10 <= guesses <= 10 + (time.monotonic() - begun_s) / 6
        slowed = box.claim(code)
        assert refusal(slowed) == (429, "too-many")
        assert 0 < int(slowed.headers["retry-after"]) <= 6


def test_without_the_authoritys_files_it_says_how_to_mend_it() -> None:
    centre = Centre()
    try:
        key = centre.config.state / "box-ca.key"
        assert key.stat().st_mode & 0o077 == 0
        before = ca.load(centre.config.state).pem
        ca.certificate_file(centre.config.state).unlink()
        ca.make(centre.config.state)  # stopped between its two files: the same key
        after = ca.load(centre.config.state)
        ours = [x509.load_pem_x509_certificate(p.encode()) for p in (before, after.pem)]
        assert ours[0].public_key() == ours[1].public_key()
        key.write_text("nada")
        with pytest.raises(AssertionError, match=r"box-ca\.key"):
            centre.start()
    finally:
        centre.__exit__(None, None, None)
