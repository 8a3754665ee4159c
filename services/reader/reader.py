"""The reader process: one PLC."""

from __future__ import annotations

from collections.abc import Callable

from services.reader.engine import Engine
from services.reader.keep import KeepClient
from services.runtime.process import Process


def setup(process: Process) -> Callable[[], None]:
    """Opens the keep wire, then reads for ever."""
    plc = process.config["plc"]
    keep = KeepClient(process, plc["id"], plc["locatario"])
    keep.open()
    engine = Engine(process, keep)
    engine.start()
    process.ready(plc=plc["id"], groups=len(process.config["groups"]))
    return engine.close
