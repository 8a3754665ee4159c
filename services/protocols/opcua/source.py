"""The reader's half of OPC UA: asyncua is loaded here, and in no other process."""

from __future__ import annotations

import logging

from services.protocols.opcua.serve import Serve
from services.protocols.source import Source, User
from services.protocols.threaded import ThreadSource
from services.runtime.process import Process


def open_source(process: Process, user: User) -> Source:
    """One OPC UA server."""
    # What the library logs of a broken line is said by us, in words; and it would print requests.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    return ThreadSource(process, user, Serve(process.config))
