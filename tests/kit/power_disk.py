"""A small ext4 disk in a file, mounted: it can be full, and it can lose its power.

What a program has written and not synced is in memory, and not in the file: a copy of the file at
any moment is what a power cut at that moment leaves. Root only, for the mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_ENV = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _run(*command: str | Path) -> None:
    subprocess.run(command, env=_ENV, check=True, capture_output=True)


class Disk:
    """``folder`` is where it is mounted."""

    def __init__(self, size_mb: int) -> None:
        if os.geteuid() != 0:
            raise PermissionError("needs root to mount a small disk: sudo, or in a container")
        self._work = Path(tempfile.mkdtemp(prefix="pe", dir="/var/tmp"))
        self._image = self._work / "disk"
        self.folder = self._work / "mounted"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(size_mb * 2**20)
        _run("mkfs.ext4", "-q", "-F", self._image)

    def __enter__(self) -> Self:
        _run("mount", "-o", "loop", self._image, self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("umount", self.folder)
        shutil.rmtree(self._work)

    def snapshot(self) -> None:
        """The power goes now; ``come_back`` when everybody who has files here is dead."""
        _run("cp", "--sparse=always", self._image, self._work / "cut")

    def come_back(self) -> None:
        """Mounted again as it was at the snapshot."""
        _run("umount", self.folder)
        (self._work / "cut").rename(self._image)
        _run("mount", "-o", "loop", self._image, self.folder)
