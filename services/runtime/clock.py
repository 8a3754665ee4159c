"""The two clocks: wall time for messages, ``time.monotonic`` for every schedule."""

from __future__ import annotations

import ctypes
import os
import time

# Microseconds. The kernel's estimate of the clock's error grows by 500 ppm from the last correction
# on and ends here. (The flag STA_UNSYNC would not do: chrony clears it with `rtcsync` only.)
_ERROR_MAX_US = 16_000_000
# On a machine that has booted with systemd, one of these should keep the clock right.
_BOOTED = "/run/systemd/system"
_TIME_SERVICES = ("/usr/lib/systemd/systemd-timesyncd", "/usr/sbin/chronyd", "/usr/sbin/ntpd",
                  "/usr/sbin/ptp4l")  # fmt: skip


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) on 64-bit Linux; only ``maxerror`` is read.
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
    return bool(_LIBC.adjtimex(ctypes.byref(timex)) < 0 or timex.maxerror < _ERROR_MAX_US)


def is_trusted(clock_sync: str) -> bool:
    """Whether the times of values are sure, by the configuration's ``clock_sync``.

    ``auto`` doubts a clock that is not synchronised on a machine that has a time service, running
    or not; where there is none (a container, a trial), nobody can tell.
    """
    if clock_sync == "ignored" or is_synchronised():
        return True
    has_service = os.path.exists(_BOOTED) and any(map(os.path.exists, _TIME_SERVICES))
    return clock_sync == "auto" and not has_service
