"""The files of the fleet process under ``<state>/fleet``, and the configuration they are about.

box.pem          key and certificate, in one file so that they change in one step (identity.py)
journal.json     which step (core/journal.py)
versions/        <sha256>.json: ``{"yaml", "layouts"}`` as the centre gave it, also earlier ones
before.json      what ran before the version on its way in, to go back to
local-<when>/    files changed at the box, before they were overwritten
kept.json        this process, while a configuration without ``fleet:`` is watched
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from services.fleet.core.journal import Damaged, Journal, from_json
from services.runtime import files

MAX_FILE_BYTES = 4 * 2**20
# Of an installed box (deploy/install.sh): the group reads it.
MODE = 0o640
KEPT_VERSIONS = 3


@dataclass(frozen=True, slots=True)
class Texts:
    """A configuration: config.yaml and the layouts beside it, by their path there."""

    yaml: str
    layouts: dict[str, str]

    @property
    def sha256(self) -> str:
        """As the centre has it."""
        text = json.dumps([self.yaml, self.layouts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Folder:
    """``<state>/fleet`` of one box."""

    state: Path
    config_file: Path

    @property
    def own(self) -> Path:
        """It itself."""
        return self.state / "fleet"

    @property
    def before(self) -> Path:
        """What ran before."""
        return self.own / "before.json"

    @property
    def kept(self) -> Path:
        """``render.FLEET_KEPT``."""
        return self.own / "kept.json"

    @property
    def quotas(self) -> Path:
        """What the centre allows, where the store looks (services/store_forward/thinning.py)."""
        return self.state / "quotas.json"

    def make(self) -> None:
        """It exists, closed to others."""
        (self.own / "versions").mkdir(mode=0o700, parents=True, exist_ok=True)

    # -- the journal ----------------------------------------------------------------------

    def journal(self) -> Journal:
        """What was under way. Raises Damaged, OSError."""
        try:
            return from_json(json.loads((self.own / "journal.json").read_bytes()))
        except FileNotFoundError:
            return Journal()
        except Damaged:
            raise
        except ValueError as e:
            raise Damaged(str(e)) from None

    def write_journal(self, journal: Journal) -> None:
        """Durable when it returns."""
        write(self.own / "journal.json", json.dumps(journal.as_json(), indent=1))

    # -- versions -------------------------------------------------------------------------

    def keep(self, texts: Texts) -> None:
        """Stores a version."""
        data = {"yaml": texts.yaml, "layouts": texts.layouts}
        write(self.own / "versions" / f"{texts.sha256}.json", json.dumps(data))

    def version(self, sha256: str) -> Texts:
        """A stored version. Raises OSError, ValueError where it is not there, or not whole."""
        data = json.loads((self.own / "versions" / f"{sha256}.json").read_bytes())
        texts = Texts(data["yaml"], data["layouts"])
        if texts.sha256 != sha256:
            raise ValueError(f"version {sha256} is damaged")
        return texts

    def prune(self, wanted: Iterable[str]) -> None:
        """Leaves those, and the last few besides."""
        keep = {f"{sha256}.json" for sha256 in wanted}
        stored = (self.own / "versions").glob("*.json")
        others = sorted((f for f in stored if f.name not in keep), key=lambda f: f.stat().st_mtime)
        for file in others[: max(0, len(others) - KEPT_VERSIONS)]:
            file.unlink(missing_ok=True)

    # -- what stands at the box -----------------------------------------------------------

    def at(self, name: str) -> Path:
        """Where a layout of that path stands."""
        return self.config_file.parent / name

    def local(self, layouts: Iterable[str]) -> Texts:
        """config.yaml and those of the layouts that there are; what is unreadable is "" or none."""
        found = {name: text for name in layouts if (text := read(self.at(name))) is not None}
        return Texts(read(self.config_file) or "", found)

    def applied(self) -> str | None:
        """The config.yaml that was applied last, whoever did it."""
        return read(self.state / "applied" / "config.yaml")

    def keep_local(self, layouts: Iterable[str], when: str) -> Path:
        """Copies what stands at the box to a folder for people; returns it."""
        texts = self.local(layouts)
        folder = self.own / f"local-{when}"
        for name, text in {self.config_file.name: texts.yaml, **texts.layouts}.items():
            file = folder / name
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(file, text)
        return folder

    def why_unwritable(self, name: str) -> str:
        """Why the file of that path cannot be replaced; "" where it can. Tries it, beside it."""
        file = self.at(name)
        place = file.parent
        while not place.exists():
            place = place.parent
        trial = place / f".plc-edge.{os.getpid()}.trial"
        try:
            trial.touch(mode=0o600)
            trial.unlink()
        except OSError as e:
            return f"{place} cannot be written ({e.strerror})"
        if not file.exists():
            return ""
        # In a folder with the sticky bit only a file's owner may replace it (unlink(2)).
        owners = (0, file.stat().st_uid, place.stat().st_uid)
        if place.stat().st_mode & stat.S_ISVTX and os.geteuid() not in owners:
            return f"{file} belongs to another user, and {place} has the sticky bit"
        return ""

    def sweep(self, name: str) -> None:
        """Removes what a killed ``write`` has left beside a file."""
        file = self.at(name)
        for stale in file.parent.glob(f".{glob.escape(file.name)}.*.new"):
            with contextlib.suppress(OSError):
                stale.unlink()

    def place(self, name: str, text: str | None) -> None:
        """Puts a file in place in one step, with the mode of the one before; None: away with it.

        Raises OSError.
        """
        file = self.at(name)
        if text is None:
            file.unlink(missing_ok=True)
            return
        if read(file) == text:
            return
        mode = MODE
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(file.stat().st_mode)
        file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        write(file, text, mode)


def unsafe(name: str, config_name: str) -> str:
    """Why no layout may be put there; "" where it may. Whoever speaks for the centre must not reach
    anything but layouts: no secret, no certificate, nothing outside.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        return "leaves the folder of the configuration"
    if str(path) != name or any(part.startswith(".") for part in path.parts):
        return "is no plain path"
    if path.suffix not in (".yaml", ".yml"):
        return "does not end in .yaml"
    if name == config_name:
        return "is the configuration itself"
    return "is that of a centre" if path.name == "central.yaml" else ""


def read(file: Path) -> str | None:
    """A file's text; None where it is missing or of no use. Line ends are kept as they are."""
    try:
        return files.read(file, MAX_FILE_BYTES).decode("utf-8", "backslashreplace")
    except files.Unreadable:
        return None


def write(file: Path, text: str, mode: int = 0o600) -> None:
    """Writes a file whole: after a power cut it is the old one or the new one. Raises OSError."""
    files.write_whole(file, text.encode("utf-8", "surrogateescape"), mode)


def read_json(file: Path) -> Any:
    """None where there is nothing of use."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
