"""What a CPU has: its blocks' variables and PLC tags, with their types, as symbols."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from services.protocols.found import Found
from services.protocols.s7plus.access import access
from services.protocols.s7plus.cpu import Cpu
from services.runtime.errors import PlcEdgeError

# A program with arrays of structs has millions: nobody looks through them, and each is 0.5 kB.
MAX_VARIABLES = 100_000


def find(config: Mapping[str, Any], host: str, path: str) -> list[Found]:
    """Everything that begins with ``path``, a block or symbol (``Motor.speed``). Units and comments
    are no part of what the CPU tells.
    """
    plc = config["plc"]
    cpu = Cpu(host, plc["port"], access(plc), plc["timeout_s"])
    try:
        variables = cpu.tree().variables(path)
        found = [
            Found(symbol.replace('"', ""), {"symbol": symbol}, str(type_) if type_ else "",
                  why="" if type_ else "it has no value (a pointer, an instance)")
            for symbol, type_ in islice(variables, MAX_VARIABLES + 1)
        ]  # fmt: skip
    finally:
        cpu.close()
    if len(found) > MAX_VARIABLES:
        message = f"{plc['id']} has more than {MAX_VARIABLES:,} variables there"
        raise PlcEdgeError(f"{message}: say where to begin, e.g. a block: `plc-edge browse"
                           f" {plc['id']} {found[0].path.split('.')[0]}`")  # fmt: skip
    return found
