"""Files: one that somebody names is read whole, bounded, and never waited for; one of ours is
written whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

# A secret is a line; certificates and CA bundles are some 200 kB.
SECRET_MAX_BYTES = 64 * 2**10
PEM_MAX_BYTES = 4 * 2**20
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(OSError):
    """A file cannot be used; the text says why, as in "it does not exist"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.strerror = reason


def read(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises Unreadable.

    Anything else is refused unopened: opening a pipe that nobody writes to would wait for ever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, not a file")
        # O_NONBLOCK, should it have become a pipe since.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(max_bytes + 1)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("does not exist") from None
    except OSError as e:
        raise Unreadable(f"cannot be opened: {e.strerror}") from None
    except ValueError:  # a NUL byte, or a surrogate that stands for no byte
        raise Unreadable("has a name that no file can have") from None
    if len(content) > max_bytes:
        size = f"{max_bytes >> 20} MiB" if max_bytes >= 2**20 else f"{max_bytes >> 10} KiB"
        raise Unreadable(f"is larger than {size}")
    return content


def write_whole(file: Path, content: bytes, mode: int = 0o600) -> None:
    """After a death or a power cut it is the old one or the new one. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, mode), "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
