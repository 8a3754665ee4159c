"""The two clocks: wall time for messages, ``time.monotonic`` for every schedule."""

from __future__ import annotations

import ctypes
import time

# adjtimex(2)
_STA_UNSYNC, _TIME_ERROR = 0x0040, 5


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) on 64-bit Linux; only ``status`` is read.
    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]  # fmt: skip


_LIBC = ctypes.CDLL(None)


def now_ms() -> int:
    """Unix time in ms, UTC. It may step; nothing is scheduled by it."""
    return time.time_ns() // 1_000_000


def is_synchronised() -> bool:
    """Whether the kernel says that something (NTP, PTP) keeps the wall clock right; true where it
    does not tell. One system call.
    """
    timex = _Timex()
    answer = _LIBC.adjtimex(ctypes.byref(timex))
    return not (answer == _TIME_ERROR or (answer >= 0 and timex.status & _STA_UNSYNC))
