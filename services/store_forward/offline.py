"""The outbox of a stopped store, for ``plc-edge store``: the caller holds the process's lock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.store_forward.outbox import Outbox


class Offline:
    """What the control verbs need of a store, without sockets."""

    def __init__(self, folder: Path, site: str, outputs: Iterable[tuple[str, str]]) -> None:
        self.outbox = Outbox(folder, site, outputs)
        self.outputs = dict.fromkeys(self.outbox.cursors)

    def status(self) -> dict[str, Any]:
        """As of a running one; nothing is connected."""
        return self.outbox.status()
