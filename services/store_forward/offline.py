"""The outbox of a stopped store, for ``plc-edge store``: the caller holds the process's lock."""

from __future__ import annotations

from typing import Any

from services.store_forward.outbox import Outbox


class Offline:
    """What the control verbs need of a store, without sockets."""

    def __init__(self, config: dict[str, Any]) -> None:
        """``config`` as rendered for the process."""
        self.outbox = Outbox.of(config)
        self.outputs = dict.fromkeys(self.outbox.cursors)

    def status(self) -> dict[str, Any]:
        """As of a running one; nothing is connected."""
        return self.outbox.status()
