"""Whether a CPU's program runs, out of its answer about ``theCPUexecUnit``."""

from __future__ import annotations

import re

from s7commplus.client import _parse_cpu_state, _parse_operating_state_struct
from s7commplus.protocol import OPERATING_STATE_RUN_OBSERVED, ElementID, Ids
from s7commplus.vlq import encode_uint32_vlq

_STATE = re.compile(
    re.escape(
        bytes([ElementID.ATTRIBUTE]) + encode_uint32_vlq(Ids.CPU_EXEC_UNIT_OPERATING_STATE_STRUCT)
    )
)
# The numbers of classic S7 (SZL 0x0424), where 0 says nothing.
_UNTOLD = 0


def operating_state(answer: bytes) -> str:
    """``RUN``; ``STOP``, or another state in which the program does not run (STARTUP, HOLD: data is
    as frozen); ``UNKNOWN`` where the CPU does not tell, or two things.
    """
    state = str(_parse_cpu_state(answer))
    if state != "UNKNOWN":
        return state
    # The library knows the numbers of RUN and STOP only.
    found = {_parse_operating_state_struct(answer, m.end()) for m in _STATE.finditer(answer)}
    told = found - {None, _UNTOLD}
    return "STOP" if told and OPERATING_STATE_RUN_OBSERVED not in told else "UNKNOWN"
