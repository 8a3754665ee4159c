"""Named places where a fault test may kill a process.

``PLC_EDGE_FAILPOINT=store.after_insert:3`` kills the process with SIGKILL at the third hit.
Without the variable a hit costs one truth test (30 ns).
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("PLC_EDGE_FAILPOINT", "").partition(":")
_left = int(_count or 1) if _name else 0


def hit(name: str) -> None:
    """Marks a place; ends the process here when the environment asks for it."""
    global _left
    if _left and name == _name:
        _left -= 1
        if not _left:
            os.kill(os.getpid(), signal.SIGKILL)
