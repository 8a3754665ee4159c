"""The reader's half of S7CommPlus. ``s7commplus`` (11 MB) is loaded here only."""

from __future__ import annotations

from services.protocols.s7plus.access import access
from services.protocols.s7plus.plan import Tag
from services.protocols.s7plus.serve import Serve
from services.protocols.source import Source, User
from services.protocols.threaded import ThreadSource
from services.runtime.process import Process
from services.s7.field import Field


def open_source(process: Process, user: User) -> Source:
    """One CPU. Raises ConfigError where its password cannot be read."""
    plc = process.config["plc"]
    fields = [[Field.from_dict(f) for f in group["fields"]] for group in process.config["groups"]]
    tags = [[Tag(f.name, (f.tag or {})["symbol"], f.s7_type) for f in g] for g in fields]
    return ThreadSource(
        process, user, Serve(plc, {**access(plc), "folder": process.config["runtime"]}, tags)
    )
