"""A reader without a PLC: the real keep client, its ring in ``folder``, on a loop of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from services.reader.keep import KeepClient
from services.runtime.clock import now_ms
from services.runtime.process import Process


class Source:
    """One PLC's sequence, to a store_forward that may come and go."""

    def __init__(self, folder: Path, plc: str, locatario: str = "acme") -> None:
        config = {"process": f"reader-{plc}", "folder": "reader", "item": plc,
                  "runtime": str(folder), "state": str(folder)}  # fmt: skip
        self.plc = plc
        self._process = Process(config, folder / "conf" / f"reader-{plc}.json")
        self._client = KeepClient(self._process, plc, locatario)
        self._client.open()

    def publish(self, make: Callable[[int, int], bytes], ts_ms: int = 0) -> None:
        """One message; ``make(epoch, seq)`` gives it."""
        self._client.publish(ts_ms or now_ms(), make)

    def step(self) -> None:
        """A turn of the loop: sends, takes acknowledgements."""
        self._process.step()

    def turn(self) -> None:
        """The same, waiting for nothing."""
        self._process.at(time.monotonic() + 0.001, lambda: None)
        self._process.step()

    def drain(self, timeout_s: float = 20, left: int = 0) -> None:
        """Returns when all is acknowledged, but for so many."""
        deadline_s = time.monotonic() + timeout_s
        while self._client.pending > left:
            self.step()
            assert time.monotonic() < deadline_s, f"{self._client.pending} not acknowledged"

    def close(self) -> None:
        """Leaves; the ring stays."""
        self._client.close()
        self._process.bus.close()
