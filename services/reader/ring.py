"""What the store has not acknowledged yet, in a memory-mapped file that survives ``kill -9``.

The page cache keeps what was written when the process dies, so a restarted reader sends again what
was not acknowledged and continues the sequence. The file lies in the runtime directory (tmpfs):
after a reboot it is gone, and a new epoch begins. On a disk without fsync an older state could come
back after a power cut, and its sequence numbers would be taken for repeats.

A row is a header (magic, length, CRC32, epoch, seq) and the packed frame, from an 8-byte boundary;
rows never wrap. Recovery looks for the magic and believes only what its CRC confirms.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from collections import deque
from pathlib import Path

MAGIC = b"\xe7RNG"
# magic, CRC32 of all that follows, frame length, flags (0), epoch, seq
_HEADER = struct.Struct("<4sIIIQQ")
_TAIL = struct.Struct("<IIQQ")
SIZE_BYTES = 16 * 2**20
# Pages behind the writer are let go in such steps: the map must not count as the reader's memory.
LET_GO_BYTES = 2**20


class Ring:
    """Rows of one reader, oldest first; ``append`` overwrites the oldest when full.

    Opening recovers the newest sequence in the file: its highest epoch, and of that the rows that
    follow each other up to the highest seq.
    """

    def __init__(self, path: Path | None, size_bytes: int = SIZE_BYTES) -> None:
        self.size_bytes = size_bytes
        self.overwritten = 0
        """Rows lost to a full ring since the start."""
        self.epoch = 0
        self.last_seq = 0
        self._rows: deque[tuple[int, int, int]] = deque()  # (seq, offset, length of the frame)
        self._end = 0
        self._map = self._open(path)
        self._is_file = path is not None
        self._recover()
        self._let_go(0, self.size_bytes)

    def _open(self, path: Path | None) -> mmap.mmap:
        if path is None:
            return mmap.mmap(-1, self.size_bytes)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size != self.size_bytes:
                os.ftruncate(fd, 0)
            # A sparse map on a full disk would end the process with SIGBUS.
            os.posix_fallocate(fd, 0, self.size_bytes)
            return mmap.mmap(fd, self.size_bytes)
        finally:
            os.close(fd)

    def _recover(self) -> None:
        found: dict[tuple[int, int], tuple[int, int]] = {}
        at = self._map.find(MAGIC)
        while at >= 0:
            row = self._check(at)
            if row is not None:
                epoch, seq, length = row
                found[epoch, seq] = (at, length)
                at = self._map.find(MAGIC, at + _HEADER.size + length)
            else:
                at = self._map.find(MAGIC, at + 8)
        if not found:
            return
        self.epoch, self.last_seq = max(found)
        seq = self.last_seq
        while (self.epoch, seq) in found:
            offset, length = found[self.epoch, seq]
            self._rows.appendleft((seq, offset, length))
            seq -= 1
        _, offset, length = self._rows[-1]
        self._end = _aligned(offset + _HEADER.size + length)

    def _let_go(self, start: int, end: int) -> None:
        """Unmaps pages; their content stays in the file."""
        if self._is_file and start < end:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def _check(self, at: int) -> tuple[int, int, int] | None:
        if at % 8 or at + _HEADER.size > self.size_bytes:
            return None
        _magic, crc, length, flags, epoch, seq = _HEADER.unpack_from(self._map, at)
        if at + _HEADER.size + length > self.size_bytes:
            return None
        head = _TAIL.pack(length, flags, epoch, seq)
        frame = self._map[at + _HEADER.size : at + _HEADER.size + length]
        return (epoch, seq, length) if zlib.crc32(frame, zlib.crc32(head)) == crc else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def first_seq(self) -> int:
        """The oldest row's seq; ``last_seq + 1`` when there is none."""
        return self._rows[0][0] if self._rows else self.last_seq + 1

    def begin(self, epoch: int) -> None:
        """Starts a new sequence; the next seq is 1."""
        self._rows.clear()
        self.epoch, self.last_seq = epoch, 0

    def append(self, seq: int, frame: bytes) -> None:
        """Keeps the packed frame of ``seq`` (= last_seq + 1). Raises ValueError where it is larger
        than the ring.
        """
        need = _aligned(_HEADER.size + len(frame))
        if need > self.size_bytes:
            raise ValueError(f"a message of {len(frame)} bytes exceeds the ring")
        at = self._end
        if at + need > self.size_bytes:
            self._free(at, self.size_bytes)
            at = 0
        self._free(at, at + need)
        head = _TAIL.pack(len(frame), 0, self.epoch, seq)
        crc = zlib.crc32(frame, zlib.crc32(head))
        self._map[at : at + _HEADER.size + len(frame)] = (
            _HEADER.pack(MAGIC, crc, len(frame), 0, self.epoch, seq) + frame
        )
        self._rows.append((seq, at, len(frame)))
        self.last_seq = seq
        self._end = at + need
        step = at // LET_GO_BYTES * LET_GO_BYTES
        if self._end // LET_GO_BYTES * LET_GO_BYTES != step:
            self._let_go(step, min(step + LET_GO_BYTES, self.size_bytes))

    def _free(self, start: int, end: int) -> None:
        """Gives up the oldest rows that lie in [start, end)."""
        rows = self._rows
        while rows and start <= rows[0][1] < end:
            rows.popleft()
            self.overwritten += 1

    def frame(self, seq: int) -> bytes:
        """The packed frame of a row that is kept. Raises KeyError for any other."""
        i = seq - self.first_seq
        if not 0 <= i < len(self._rows):
            raise KeyError(seq)
        _, offset, length = self._rows[i]
        return self._map[offset + _HEADER.size : offset + _HEADER.size + length]

    def release(self, seq: int) -> None:
        """Forgets every row up to ``seq``: the store has them."""
        rows = self._rows
        while rows and rows[0][0] <= seq:
            rows.popleft()

    def close(self) -> None:
        """Unmaps; the file stays."""
        self._map.close()


def open_ring(path: Path, size_bytes: int = SIZE_BYTES) -> tuple[Ring, str]:
    """The ring at ``path``; where the disk has no room for it, one in memory, and why."""
    try:
        return Ring(path, size_bytes), ""
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        return Ring(None, size_bytes), f"{path}: {e.strerror}"


def _aligned(n: int) -> int:
    return -(-n // 8) * 8
