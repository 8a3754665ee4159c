"""What the store has not acknowledged yet, in a memory-mapped file that survives ``kill -9``.

The page cache keeps what was written when the process dies, so a restarted reader sends again what
was not acknowledged and continues the sequence. The file lies in the runtime directory (tmpfs):
after a reboot it is gone, and a new epoch begins. On a disk without fsync an older state could come
back after a power cut, and its sequence numbers would be taken for repeats.

A row is a header (magic, length, CRC32, epoch, seq) and the packed frame, from an 8-byte boundary;
rows never wrap. Recovery looks for the magic and believes only what its CRC confirms. The first
page says in two places, written in turn, how far the sequence has come: a damaged row leaves a hole
that the store hears of, and its number is not given twice.
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
_HEAD = struct.Struct("<QQI")
_HEAD_VALUES = struct.Struct("<QQ")
SLOTS, ROWS_FROM = (0, 64), 4096
SIZE_BYTES = 16 * 2**20
# Pages behind the writer are let go in such steps: the map must not count as the reader's memory.
LET_GO_BYTES = 2**20


class Ring:
    """Rows of one reader, oldest first; ``append`` overwrites the oldest when full.

    Opening recovers the newest sequence in the file: its highest epoch, and of that the rows that
    lie one behind the other up to the highest seq. A damaged one keeps its place: ``frame`` gives
    None for it.
    """

    def __init__(self, path: Path | None, size_bytes: int = SIZE_BYTES) -> None:
        self.size_bytes = size_bytes
        self.overwritten = 0
        """Rows lost to a full ring since the start."""
        self.epoch = 0
        self.last_seq = 0
        # (seq, offset, length of the frame); offset 0: the row is damaged
        self._rows: deque[tuple[int, int, int]] = deque()
        self._end = ROWS_FROM
        self._map = self._open(path)
        self._is_file = path is not None
        self._recover()
        self._let_go(0, self.size_bytes)

    def _open(self, path: Path | None) -> mmap.mmap:
        if path is None:
            return mmap.mmap(-1, self.size_bytes)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A sparse map on a full disk would end the process with SIGBUS. (Of a file that was
            # cut off, what is left counts.)
            os.posix_fallocate(fd, 0, self.size_bytes)
            return mmap.mmap(fd, self.size_bytes)
        finally:
            os.close(fd)

    def _recover(self) -> None:
        found: dict[tuple[int, int], tuple[int, int]] = {}
        at = self._next_magic(ROWS_FROM)
        while at >= 0:
            row = self._check(at)
            if row is not None:
                epoch, seq, length = row
                found[epoch, seq] = (at, length)
                at = self._next_magic(at + _HEADER.size + length)
            else:
                at = self._next_magic(at + 1)
        noted = max(self._slot(at) for at in SLOTS)
        self.epoch, self.last_seq = max([noted, *found])
        here = sorted((seq for epoch, seq in found if epoch == self.epoch), reverse=True)
        if not here:
            return
        newest, size = found[self.epoch, here[0]]
        self._end = _aligned(newest + _HEADER.size + size)
        expect, before, wrapped = self.last_seq, self._end, False
        for seq in here:
            offset, length = found[self.epoch, seq]
            if offset > before:
                if wrapped:
                    break  # left over from an earlier lap
                wrapped = True
            if wrapped and offset < self._end:
                break
            for damaged in range(expect, seq, -1):
                self._rows.appendleft((damaged, 0, 0))
            self._rows.appendleft((seq, offset, length))
            expect, before = seq - 1, offset

    def _next_magic(self, start: int) -> int:
        # Never up to the map's end: before 3.11.5 (Debian 12 has 3.11.2) mmap.find reads one byte
        # behind the end that it is given. Where no page follows the map that is a SIGSEGV, again at
        # each start (python/cpython#105235). No row begins after the last place for a header.
        end = self.size_bytes - _HEADER.size + len(MAGIC)
        return self._map.find(MAGIC, start, end) if start < end else -1

    def _slot(self, at: int) -> tuple[int, int]:
        epoch, seq, crc = _HEAD.unpack_from(self._map, at)
        return (epoch, seq) if zlib.crc32(_HEAD_VALUES.pack(epoch, seq)) == crc else (0, 0)

    def _note(self) -> None:
        values = _HEAD_VALUES.pack(self.epoch, self.last_seq)
        crc = zlib.crc32(values)
        _HEAD.pack_into(self._map, SLOTS[self.last_seq & 1], self.epoch, self.last_seq, crc)

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
        self._note()

    def append(self, seq: int, frame: bytes) -> None:
        """Keeps the packed frame of ``seq`` (= last_seq + 1). Raises ValueError where it is larger
        than the ring.
        """
        need = _aligned(_HEADER.size + len(frame))
        if need > self.size_bytes - ROWS_FROM:
            raise ValueError(f"a message of {len(frame)} bytes exceeds the ring")
        at = self._end
        if at + need > self.size_bytes:
            self._free(at, self.size_bytes)
            at = ROWS_FROM
        self._free(at, at + need)
        head = _TAIL.pack(len(frame), 0, self.epoch, seq)
        crc = zlib.crc32(frame, zlib.crc32(head))
        # The header last: with it the row is there.
        start = at + _HEADER.size
        self._map[start : start + len(frame)] = frame
        _HEADER.pack_into(self._map, at, MAGIC, crc, len(frame), 0, self.epoch, seq)
        self._rows.append((seq, at, len(frame)))
        self.last_seq = seq
        self._note()
        self._end = at + need
        step = at // LET_GO_BYTES * LET_GO_BYTES
        if self._end // LET_GO_BYTES * LET_GO_BYTES != step:
            self._let_go(step, min(step + LET_GO_BYTES, self.size_bytes))

    def _free(self, start: int, end: int) -> None:
        """Gives up the oldest rows that lie in [start, end)."""
        rows = self._rows
        while rows and (start <= rows[0][1] < end or not rows[0][1]):
            rows.popleft()
            self.overwritten += 1

    def frame(self, seq: int) -> bytes | None:
        """The packed frame of a row that is kept, None where it is damaged. Raises KeyError for any
        other.
        """
        i = seq - self.first_seq
        if not 0 <= i < len(self._rows):
            raise KeyError(seq)
        _, offset, length = self._rows[i]
        if not offset:
            return None
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
