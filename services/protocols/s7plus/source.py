"""The reader's half of S7CommPlus. ``s7commplus`` (11 MB) is loaded here only."""

from __future__ import annotations

import tempfile

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
    # During a handshake s7commplus writes the TLS session's secrets to a file: in memory, and where
    # nobody else may look.
    tempfile.tempdir = process.config["runtime"]
    fields = [[Field.from_dict(f) for f in group["fields"]] for group in process.config["groups"]]
    tags = [[Tag(f.name, (f.tag or {})["symbol"], f.s7_type) for f in g] for g in fields]
    return ThreadSource(process, user, Serve(plc, access(plc), tags))
