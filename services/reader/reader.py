"""The reader process: one PLC."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from services.reader.engine import Engine
from services.reader.keep import KeepClient
from services.runtime.process import Process


def setup(process: Process) -> Callable[[], None]:
    """Opens the keep wire, then reads for ever."""
    plc = process.config["plc"]
    # Only this one: the others' libraries are not this reader's to pay for.
    protocol = import_module(f"services.protocols.{plc['protocol']}.source")
    keep = KeepClient(process, plc["id"], plc["locatario"])
    keep.open()
    engine = Engine(process, keep, protocol.open_source)
    engine.start()
    process.ready(plc=plc["id"], groups=len(process.config["groups"]))
    return engine.close
