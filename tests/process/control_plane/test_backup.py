"""Backup and restore as an operator does them, on both databases and from one to the other."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from services.control_plane import restore as restoring
from services.control_plane.backup import keys as key_files
from services.control_plane.backup import reflect
from services.control_plane.tables import Base
from tests.kit.centre import BOX_CONFIG, DATABASES, PLC_EDGE, Centre
from tests.kit.common import ROOT, until
from tests.kit.dynsec import Accounts, connected

ACME = "/v1/tenants/acme"
BOX = {"kind": "broker", "role": "box", "site": "caixa-1"}


def command(centre: Centre, verb: str, file: Path | str, *words: str) -> tuple[int, str]:
    """The exit code, and what it said."""
    done = centre.cli(verb, str(file), "-c", str(centre.file), *words)
    return done.returncode, done.stdout + done.stderr


def content(centre: Centre) -> dict[str, list[Any]]:
    """Every row of every table."""
    with centre.database.snapshot() as connection:
        return {
            t.name: sorted((list(row) for row in connection.execute(t.select())), key=repr)
            for t in reflect(connection)
        }


def but_the_restore(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A restore is a row of the audit itself."""
    audit = [row for row in rows["audit"] if "database.restore" not in row]
    return {**rows, "audit": audit, "audit_head": []}


def filled(centre: Centre) -> dict[str, str]:
    """Something in each table; the keys of tenant acme."""
    keys = centre.tenant("acme")
    text = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan="1s")
    form = {"yaml": text, "comment": "ação ✓"}
    headers = {"idempotency-key": "uma-vez"}
    path = f"{ACME}/sites/caixa-1/configs"
    assert centre.call("POST", path, form, headers=headers).status == 201
    centre.tenant("outra", "free")
    centre.make("/v1/tenants/outra/suspend", {})
    return keys


@pytest.mark.parametrize(
    ("database", "target"),
    [("sqlite", "sqlite"), ("postgresql", "postgresql"), ("sqlite", "postgresql"),
     ("postgresql", "sqlite")],
)  # fmt: skip
def test_what_is_restored_is_what_was_there(database: str, target: str, tmp_path: Path) -> None:
    """Made while it runs; put back on another machine, whose operator has a key of its own."""
    file = tmp_path / "copia"
    with Centre(database) as old:
        keys = filled(old)
        code, said = command(old, "backup", file)
        assert code == 0, said
        assert ("SECRETS" in said, "audit.key" in said) == (True, True), said
        assert file.stat().st_mode & 0o077 == 0
        before = content(old)
        audit_key = (old.config.state / "audit.key").read_bytes()
    new = Centre(target)
    try:
        refused = command(new, "restore", file)
        assert (refused[0], "not empty" in refused[1]) == (1, True), refused
        assert "--force" in refused[1]
        code, said = command(new, "restore", file, "--force")
        assert code == 0, said
        assert but_the_restore(content(new)) == but_the_restore(before)
        assert (new.config.state / "audit.key").read_bytes() == audit_key
        assert not (new.config.state / "restoring").exists()
        new.start()
        new.key = old.key
        for key in (old.key, *(keys[role] for role in ("admin", "reader"))):
            assert new.call("GET", "/v1/me", key=key).status == 200
        whole = new.cli("audit", "verify", "-c", str(new.file))
        assert whole.returncode == 0, whole.stderr
        assert new.call("GET", "/v1/audit").body["items"][0]["action"] == "database.restore"
        path = f"{ACME}/sites/caixa-1/configs"
        assert new.call("GET", f"{path}/1").body["comment"] == "ação ✓"
        # Rows that count themselves up go on after the highest.
        new.make("/v1/tenants", {"id": "depois", "plan": "free"})
        code, said = command(new, "restore", file, "--force")
        assert (code, "stop" in said) == (1, True), said
    finally:
        new.__exit__(None, None, None)


def made(folder: Path, database: str = "sqlite") -> tuple[Path, bytes]:
    """A backup, and what is in it."""
    file = folder / "copia"
    with Centre(database) as centre:
        filled(centre)
        assert command(centre, "backup", file)[0] == 0
    return file, gzip.decompress(file.read_bytes())


def sealed(lines: list[Any], file: Path) -> Path:
    """A backup of these lines, with a checksum that is right."""
    texts = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]
    rows = sum(line[0] == "row" for line in lines)
    end = json.dumps(["end", rows, hashlib.sha256(b"".join(texts)).hexdigest()]).encode()
    file.write_bytes(gzip.compress(b"".join([*texts, end, b"\n"])))
    return file


def edited(text: bytes, edit: Callable[[list[Any]], None], file: Path) -> Path:
    lines = [json.loads(line) for line in text.splitlines()][:-1]
    edit(lines)
    return sealed(lines, file)


@pytest.mark.parametrize("database", DATABASES)
def test_what_cannot_be_right_is_refused_and_changes_nothing(database: str, tmp_path: Path) -> None:
    file, text = made(tmp_path)
    raw = file.read_bytes()
    centre = Centre(database)
    try:
        empty = content(centre)
        own_key = (centre.config.state / "audit.key").read_bytes()

        def refused(why: str, bad: Path, *words: str) -> None:
            code, said = command(centre, "restore", bad, *words)
            assert (code, why in said) == (1, True), f"{why}: {said}"
            assert "Traceback" not in said
            assert content(centre) == empty
            assert (centre.config.state / "audit.key").read_bytes() == own_key
            assert not list(centre.config.state.glob("restoring*"))

        bad = tmp_path / "bad"
        bad.write_bytes(raw[: len(raw) // 2])
        refused("damaged", bad, "--force")
        for place in (40, len(raw) // 2, len(raw) - 30):
            flipped = bytearray(raw)
            flipped[place] ^= 0x20
            bad.write_bytes(flipped)
            refused("damaged", bad, "--force")
        lines = text.splitlines(keepends=True)
        bad.write_bytes(gzip.compress(b"".join(lines[:-2] + lines[-1:])))  # a row less
        refused("checksum", bad, "--force")
        bad.write_bytes(gzip.compress(b"".join(lines[:-1])))
        refused("its end is missing", bad, "--force")
        bad.write_bytes(b"SQLite format 3\0")
        refused("damaged", bad, "--force")
        bad.write_bytes(gzip.compress(b'["something else"]\n'))
        refused("no backup", bad, "--force")

        def newer(lines: list[Any]) -> None:
            lines[0][2]["schema"] = "9999"

        refused("newer plc-edge", edited(text, newer, bad), "--force")

        def outside(lines: list[Any]) -> None:
            lines[1][1] = "../../tmp/x.key"

        refused("cannot be ours", edited(text, outside, bad), "--force")

        def another_key(lines: list[Any]) -> None:
            """Of another centre: no row of the audit is under it."""
            lines[1][2] = base64.b64encode(b"00" * 32).decode()

        refused("not empty", edited(text, another_key, bad))
        fresh = Centre(database)
        try:
            with fresh.database.changing() as connection:  # as before `init`
                Base.metadata.drop_all(connection)
                connection.execute(sql("DROP TABLE alembic_version"))
            code, said = command(fresh, "restore", bad)
            assert (code, "is another key than the backup's" in said) == (1, True), said
            for key in key_files(fresh.config.state):
                key.unlink()
            code, said = command(fresh, "restore", bad)
            assert (code, "does not fit the backup's audit.key" in said) == (1, True), said
            assert not (fresh.config.state / "audit.key").exists()
            code, said = command(fresh, "restore", file)
            assert code == 0, said
        finally:
            fresh.__exit__(None, None, None)
    finally:
        centre.__exit__(None, None, None)


@pytest.mark.parametrize("database", DATABASES)
def test_a_backup_under_writes_is_one_state(database: str, tmp_path: Path) -> None:
    """Each request writes a row of its own and one of the audit: in one state both are there, or
    neither. And the audit of each backup is whole, which restoring it says.
    """
    with Centre(database) as centre:
        centre.tenant("acme", "enterprise")
        stop = threading.Event()
        numbers = itertools.count()

        def write() -> None:
            while not stop.is_set():
                centre.make(f"{ACME}/sites", {"id": f"caixa-w{next(numbers)}"})

        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        files = [tmp_path / f"copia-{n}" for n in range(4)]
        for file in files:
            code, said = command(centre, "backup", file)
            assert code == 0, said
        stop.set()
        for writer in writers:
            writer.join()
    seen = []
    for file in files:
        lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        tables: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            if line[0] == "table":
                name, columns = line[1:]
            elif line[0] == "row":
                tables.setdefault(name, []).append(dict(zip(columns, line[1:], strict=True)))
        sites = {f"tenants/acme/sites/{row['id']}" for row in tables["sites"]}
        created = {r["resource"] for r in tables["audit"] if r["action"] == "site.create"}
        assert sites == created
        assert tables["audit_head"][0]["seq"] == len(tables["audit"])
        seen.append(len(sites))
    assert seen == sorted(seen)
    assert seen[0] < seen[-1], "else nothing was written meanwhile"
    target = Centre(database)
    try:
        assert command(target, "restore", files[-1], "--force")[0] == 0
        target.chain = type(target.chain)(
            bytes.fromhex((target.config.state / "audit.key").read_text())
        )
        assert target.faults() == []
    finally:
        target.__exit__(None, None, None)


def start(centre: Centre, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PLC_EDGE, "central", *words, "-c", str(centre.file)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("database", DATABASES)
def test_killed_anywhere_it_is_all_or_nothing(database: str, tmp_path: Path) -> None:
    """``kill -9`` after parts of the time that it takes."""
    file, _ = made(tmp_path)
    with Centre(database) as centre:
        filled(centre)
        last = tmp_path / "eigene"
        began_s = time.monotonic()
        assert command(centre, "backup", last)[0] == 0
        took_s = time.monotonic() - began_s
        whole = last.read_bytes()
        for part in (0.5, 0.75, 0.9, 1.0):
            running = start(centre, "backup", str(last))
            time.sleep(took_s * part)
            running.kill()
            running.wait()
            gzip.decompress(last.read_bytes())  # the one before, or the new one: whole
        assert len(whole) > 1_000
    centre = Centre(database)
    try:
        nothing, own_key = content(centre), (centre.config.state / "audit.key").read_bytes()
        for part in (0.6, 0.8, 0.9, 1.0, 1.1):
            running = start(centre, "restore", str(file), "--force")
            time.sleep(took_s * part)
            running.kill()
            running.wait()
            restoring.settle(centre.database, centre.config.state)
            rows = content(centre)
            key = (centre.config.state / "audit.key").read_bytes()
            centre.chain = type(centre.chain)(bytes.fromhex(key.decode()))
            assert centre.faults() == []
            assert (rows == nothing) == (key == own_key)
            if rows != nothing:
                break
    finally:
        centre.__exit__(None, None, None)


class PowerCut(BaseException):
    """The process ends here."""


def cut(*_: object) -> None:
    raise PowerCut


def staged_then_cut(*arguments: Any, real: Any = restoring._stage) -> None:
    real(*arguments)
    raise PowerCut


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize(
    ("step", "patched", "done"),
    [
        ("_stage", cut, False),
        ("_stage", staged_then_cut, False),
        ("_finish", cut, True),
    ],
    ids=["keys not staged", "staged and not committed", "committed and no key in place"],
)
def test_whoever_comes_next_finishes_it_or_forgets_it(
    database: str,
    step: str,
    patched: Any,
    done: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, _ = made(tmp_path)
    centre = Centre(database)
    try:
        nothing = content(centre)
        with monkeypatch.context() as patch, file.open("rb") as source:
            patch.setattr(restoring, step, patched)
            with pytest.raises(PowerCut):
                restoring.restore(centre.database, centre.config.state, source, force=True)
        centre.start()
        key = (centre.config.state / "audit.key").read_text()
        centre.chain = type(centre.chain)(bytes.fromhex(key))
        assert centre.faults() == []
        assert (content(centre) != nothing) == done
        assert not list(centre.config.state.glob("restoring"))
    finally:
        centre.__exit__(None, None, None)


@pytest.mark.parametrize("database", DATABASES)
def test_the_broker_follows(database: str, tmp_path: Path) -> None:
    """Accounts made after the backup are gone, those deleted after it are back."""
    with Accounts() as broker, Centre(database, broker.section()) as centre:
        centre.tenant("acme")
        kept = centre.make(f"{ACME}/credentials", BOX)
        deleted = centre.make(f"{ACME}/credentials", {"kind": "broker", "role": "reader"})
        for one in (kept, deleted):
            connected(broker, one).close()
        file = tmp_path / "copia"
        assert command(centre, "backup", file)[0] == 0
        centre.make(f"{ACME}/credentials/{deleted['id']}/revoke", {})
        centre.make(f"{ACME}/devices", {"id": "clp-2", "site": "caixa-1"})
        late = centre.make(f"{ACME}/credentials", BOX)
        connected(broker, late).close()
        until(lambda: broker.accounts() == {kept["username"], late["username"]}, 20, broker.log)
        assert centre.service is not None
        assert centre.service.terminate() == 0
        (centre.config.state / "broker.key").unlink()  # the disk is new
        code, said = command(centre, "restore", file, "--force")
        assert code == 0, said
        centre.start()
        wanted = {kept["username"], deleted["username"]}
        until(lambda: broker.accounts() == wanted, 30, lambda: str(broker.accounts()))
        connected(broker, deleted, 20).close()
        with connected(broker, kept, 20) as box:
            assert box.publish("plc/acme/clp-1") in ("Success", "No matching subscribers")
            assert box.publish("plc/acme/clp-2") == "Not authorized"


def test_it_goes_through_a_pipe(tmp_path: Path) -> None:
    """To a program that encrypts it, and back; nothing else is written to standard output."""
    with Centre() as centre:
        filled(centre)
        before = content(centre)
        words = [*PLC_EDGE, "central", "backup", "-", "-c", str(centre.file)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
        assert b"SECRETS" in done.stderr
    other = Centre()
    try:
        words = [*PLC_EDGE, "central", "restore", "-", "-c", str(other.file), "--force", "--json"]
        back = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, input=done.stdout)
        keys = ["audit.key", "box-ca.key", "box-ca.pem", "receivers.key"]
        assert json.loads(back.stdout)["keys"] == keys
        assert but_the_restore(content(other)) == but_the_restore(before)
    finally:
        other.__exit__(None, None, None)
