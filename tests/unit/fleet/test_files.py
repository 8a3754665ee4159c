"""The files: what a version is, where it may go, and that a file is old or new."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fleet.core.journal import Attempt, Damaged, Journal, Target
from services.fleet.files import Folder, Texts, read, unsafe, write
from tests.kit.scripted_centre import sha256


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_version_has_the_digest_that_the_centre_gives_it(
    yaml: str, layouts: dict[str, str]
) -> None:
    assert Texts(yaml, layouts).sha256 == sha256(yaml, layouts)


@pytest.mark.parametrize("name", ["l.yaml", "layouts/db 500.yml", "layouts/a/b.yaml"])
def test_layouts_may_lie_anywhere_below(name: str) -> None:
    assert unsafe(name, "config.yaml") == ""


PARTS = st.lists(st.sampled_from(["..", ".", "", "a", "/", "\0", "x.yaml", ".b", "é"]), max_size=6)


@given(PARTS.map("/".join) | st.text(max_size=40).map(lambda t: f"{t}.yaml"))
def test_no_layout_leaves_the_folder_or_is_anything_else(name: str) -> None:
    if unsafe(name, "config.yaml"):
        return
    file = Path(os.path.normpath(Path("/etc/plc-edge") / name))
    assert str(file).startswith("/etc/plc-edge/")
    assert file.suffix in (".yaml", ".yml")
    assert file.name != "config.yaml" or file.parent != Path("/etc/plc-edge")
    assert not any(part.startswith(".") for part in Path(name).parts)


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "mqtt.pw",
        "/etc/passwd.yaml",
        "environment",
        "",
        "central.yaml",
        "l/central.yaml",
    ],
)
def test_other_files_are_out_of_reach(name: str) -> None:
    assert unsafe(name, "config.yaml")


def folder(tmp_path: Path) -> Folder:
    etc = tmp_path / "etc"
    etc.mkdir()
    made = Folder(tmp_path / "state", etc / "config.yaml")
    made.make()
    return made


def test_a_file_is_placed_with_the_mode_of_the_one_before(tmp_path: Path) -> None:
    f = folder(tmp_path)
    f.config_file.write_text("old\r\n")
    f.config_file.chmod(0o604)
    f.place("config.yaml", "new\r\n")
    assert f.config_file.read_bytes() == b"new\r\n"
    assert stat.S_IMODE(f.config_file.stat().st_mode) == 0o604
    f.place("layouts/a.yaml", "x")
    assert stat.S_IMODE(f.at("layouts/a.yaml").stat().st_mode) == 0o640
    f.place("layouts/a.yaml", None)
    f.place("layouts/a.yaml", None)
    assert not f.at("layouts/a.yaml").exists()
    assert {p.name for p in f.config_file.parent.iterdir()} == {"config.yaml", "layouts"}
    (f.config_file.parent / ".config.yaml.77.new").touch()
    f.sweep("config.yaml")
    assert {p.name for p in f.config_file.parent.iterdir()} == {"config.yaml", "layouts"}


def test_what_is_the_same_is_not_touched(tmp_path: Path) -> None:
    f = folder(tmp_path)
    f.place("config.yaml", "a")
    before = f.config_file.stat()
    f.place("config.yaml", "a")
    assert (f.config_file.stat().st_ino, f.config_file.stat().st_mtime_ns) == (
        before.st_ino, before.st_mtime_ns,
    )  # fmt: skip


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError):
        write(tmp_path / "f", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_versions_are_whole_or_refused_and_the_last_are_kept(tmp_path: Path) -> None:
    f = folder(tmp_path)
    kept = [Texts(f"site: s{n}\n", {"l.yaml": "x"}) for n in range(8)]
    for texts in kept:
        f.keep(texts)
    assert f.version(kept[0].sha256) == kept[0]
    f.prune([kept[0].sha256])
    assert f.version(kept[0].sha256) == kept[0]
    assert len(list((f.own / "versions").iterdir())) == 4
    (f.own / "versions" / f"{kept[0].sha256}.json").write_text('{"yaml": "b", "layouts": {}}')
    with pytest.raises(ValueError, match="damaged"):
        f.version(kept[0].sha256)


def test_the_journal_comes_back_and_damage_is_told(tmp_path: Path) -> None:
    f = folder(tmp_path)
    assert f.journal() == Journal()
    journal = Journal(running=Target(1, "a")).begin(Attempt(Target(2, "b"), ("status",)))
    f.write_journal(journal)
    assert f.journal() == journal
    (f.own / "journal.json").write_bytes(b'{"step": "appl')
    with pytest.raises(Damaged):
        f.journal()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path) -> None:
    f = folder(tmp_path)
    f.config_file.write_text("x")
    assert f.why_unwritable("config.yaml") == ""
    assert f.why_unwritable("new/deep/l.yaml") == ""
    assert not f.at("new").exists()


def test_what_is_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "c"
    file.write_bytes(b"a: \xff\n")
    assert read(file) == "a: \\xff\n"
    assert read(tmp_path) is None
    assert read(tmp_path / "none") is None
