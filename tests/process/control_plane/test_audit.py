"""The audit's chain: whatever is changed in the database behind the API's back is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.kit.centre import DATABASES, Centre


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as running:
        for n in range(4):
            running.tenant(f"livro-{n}")
        yield running


# What somebody with the database's password does, and words of what is said of it.
TAMPERED = {
    "another author": ("UPDATE audit SET actor = 'crd_0' WHERE seq = 5", "row 5 is not what"),
    "another time": ("UPDATE audit SET ts_ms = ts_ms + 1 WHERE seq = 7", "row 7 is not what"),
    "another tenant": ("UPDATE audit SET tenant_id = 'x' WHERE seq = 6", "row 6 is not what"),
    "another value": ("UPDATE audit SET after = '{}' WHERE seq = 4", "row 4 is not what"),
    "a row left out": ("DELETE FROM audit WHERE seq = 8", "rows 8 to 8 are missing"),
    "the first left out": ("DELETE FROM audit WHERE seq = 1", "rows 1 to 1 are missing"),
    "the last left out": (
        "DELETE FROM audit WHERE seq = (SELECT seq FROM audit_head)", "the chain ends at row",
    ),
    "everything left out": ("DELETE FROM audit", "the chain ends at row 0"),
    "the head put back": (
        "UPDATE audit_head SET seq = 3, mac = (SELECT mac FROM audit WHERE seq = 3)",
        "and ended at row 3",
    ),
    "no head": ("DELETE FROM audit_head", "the head of the chain is missing"),
    "a row made up": (
        "INSERT INTO audit SELECT seq + 1000, ts_ms, actor, role, tenant_id, action, resource,"
        " before, after, mac FROM audit WHERE seq = 9",
        "row 1009 is not what",
    ),
    "two rows exchanged": (
        "UPDATE audit SET actor = CASE seq WHEN 3 THEN (SELECT actor FROM audit WHERE seq = 1)"
        " ELSE 'x' END WHERE seq IN (3, 4)",
        "row 4 is not what",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_is_found(centre: Centre, case: str) -> None:
    statement, words = TAMPERED[case]
    assert centre.faults() == []
    with centre.database.engine.connect() as connection:
        saved = connection.exec_driver_sql("SELECT * FROM audit").all()
        head = connection.exec_driver_sql("SELECT * FROM audit_head").all()
        connection.exec_driver_sql(statement)
        connection.commit()
        faults = centre.faults()
        for table, rows in (("audit", saved), ("audit_head", head)):
            connection.exec_driver_sql(f"DELETE FROM {table}")
            mark = "?" if centre.database.is_sqlite else "%s"
            marks = ", ".join([mark] * len(rows[0]))
            insert = f"INSERT INTO {table} VALUES ({marks})"
            connection.exec_driver_sql(insert, [tuple(row) for row in rows])
        connection.commit()
    assert any(words in fault for fault in faults), faults


def test_the_command_says_it_and_finds_an_older_database(centre: Centre) -> None:
    whole = centre.cli("audit", "verify", "-c", str(centre.file))
    assert (whole.returncode, whole.stdout[:18]) == (0, "the audit is whole"), whole.stderr
    noted = whole.stdout.split()[-1]
    centre.make("/v1/tenants", {"id": "depois"})
    since = centre.cli("audit", "verify", "-c", str(centre.file), "--since", noted)
    assert since.returncode == 0, since.stderr
    forged = noted[:-4] + ("0000" if noted[-4:] != "0000" else "1111")
    older = centre.cli("audit", "verify", "-c", str(centre.file), "--since", forged)
    assert older.returncode == 1
    assert "an older database was put back" in older.stderr
    assert centre.cli("audit", "verify", "-c", str(centre.file), "--since", "x").returncode == 2


def test_without_its_key_nothing_can_be_said(centre: Centre) -> None:
    key = centre.config.state / "audit.key"
    assert key.stat().st_mode & 0o077 == 0
    away = key.with_suffix(".away")
    shutil.move(key, away)
    try:
        failed = centre.cli("audit", "verify", "-c", str(centre.file))
        again = centre.cli("init", "-c", str(centre.file))
    finally:
        shutil.move(away, key)
    assert (failed.returncode, "restore it from the backup" in failed.stderr) == (2, True)
    assert again.returncode == 2, "a new key would call the whole chain forged"
