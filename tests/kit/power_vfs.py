"""A disk that loses power: an SQLite VFS that knows what has been synced, and a cut that drops,
tears and reorders the rest.

Files are real. Beside each lies in memory what a power cut may leave of it: the content at its last
sync and every write since. ``cut`` rewrites the folder: of each file the synced content, plus any
subset of the later writes in any order, each whole or torn at a 512-byte sector; a deleted file may
be back.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
_NAME = "power"


class _Disk:
    def __init__(self) -> None:
        self.synced: dict[str, bytearray] = {}
        self.writes: dict[str, list[tuple[int, bytes | None]]] = {}
        """(offset, data); data None: cut off at offset."""

    def touch(self, path: str, new: bool) -> None:
        """``new``: it has just been made. Where one of that name was removed by another way than
        ``xDelete``, nothing of that one is left.
        """
        if path not in self.writes or (new and self.writes[path][-1:] != [(0, None)]):
            self.synced[path] = bytearray(Path(path).read_bytes() if Path(path).exists() else b"")
            self.writes[path] = []

    def sync(self, path: str) -> None:
        content = self.synced[path]
        for offset, data in self.writes[path]:
            _apply(content, offset, data)
        self.writes[path] = []


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _File(apsw.VFSFile):
    def __init__(self, disk: _Disk, inherit: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name or "")
        new = not Path(self._path).exists()
        super().__init__(inherit, name, flags)
        if self._path:
            disk.touch(self._path, new)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._path:
            self._disk.writes[self._path].append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        if self._path:
            self._disk.writes[self._path].append((size, None))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._path:
            self._disk.sync(self._path)


class PowerDisk(apsw.VFS):
    """Registers itself as SQLite's default until ``unregister``."""

    def __init__(self) -> None:
        self._disk = _Disk()
        self._base = apsw.vfs_names()[0]
        super().__init__(_NAME, self._base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(self._disk, self._base, name, flags)

    def xDelete(self, name: str, sync_folder: bool) -> None:  # noqa: N802
        super().xDelete(name, sync_folder)
        self._disk.writes.setdefault(name, []).append((0, None))
        self._disk.synced.setdefault(name, bytearray())

    def forget(self) -> None:
        """Another site: nothing of the last one matters."""
        self._disk.synced.clear()
        self._disk.writes.clear()

    def cut(self, folder: Path, rng: random.Random, connections: list[Any]) -> None:
        """Power is gone. ``connections`` (segments, states) are abandoned unsynced."""
        left = {path: self._survivor(path, rng) for path in self._disk.writes}
        there = {path for path in left if Path(path).exists()}
        for connection in connections:
            connection.close()
        for path, content in left.items():
            if not path.startswith(str(folder)):
                continue
            if path in there or (content and Path(path).suffix == ".seg" and rng.random() < 0.5):
                Path(path).write_bytes(content)
            else:
                Path(path).unlink(missing_ok=True)
        self._disk.synced.clear()
        self._disk.writes.clear()

    def _survivor(self, path: str, rng: random.Random) -> bytes:
        content = bytearray(self._disk.synced[path])
        writes = list(self._disk.writes[path])
        mode = rng.randrange(4)
        if mode == 0:
            writes = []
        elif mode == 1:
            writes = writes[: rng.randrange(len(writes) + 1)]
        elif mode == 2:
            writes = [w for w in writes if rng.random() < 0.5]
            rng.shuffle(writes)
        for offset, data in writes:
            if data is not None and rng.random() < 0.3:
                first = rng.randrange(0, len(data) + 1, SECTOR) if len(data) > SECTOR else 0
                data, offset = data[first : first + SECTOR], offset + first
            _apply(content, offset, data)
        return bytes(content)
