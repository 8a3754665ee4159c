"""The two clocks: wall time for messages, ``time.monotonic`` for every schedule."""

from __future__ import annotations

import ctypes
import os
import time

# adjtimex(2)
_STA_UNSYNC, _TIME_ERROR = 0x0040, 5


# What these leave in /run while they work: systemd-timesyncd, chrony, ntpd and ntpsec, ptp4l.
_TIME_SERVICES = ("/run/systemd/timesync", "/run/chrony", "/run/chronyd.pid", "/run/ntpd.pid",
                  "/run/ptp4l")  # fmt: skip


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


def is_trusted(clock_sync: str) -> bool:
    """Whether the times of values are sure, by the configuration's ``clock_sync``.

    ``auto`` doubts a clock that a time service on this machine has not synchronised; where there is
    none (a container, a trial), nobody can tell.
    """
    if clock_sync == "ignored" or is_synchronised():
        return True
    return clock_sync == "auto" and not any(map(os.path.exists, _TIME_SERVICES))
