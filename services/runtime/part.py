"""A part of a process that may end before it: one tenant's, where one process serves them all.

Whatever takes a ``Process`` takes a part as well: the same loop, log and statistics, a
configuration and an item of its own. When it ends, its calls and descriptors end with it. What one
of its calls raises is the end of the part, not of the others: whoever made it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from services.runtime.process import Process, Timer


class Part(Process):
    """``config`` replaces the process's own, ``item`` names the part."""

    def __init__(
        self,
        whole: Process,
        item: str,
        config: dict[str, Any],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """``on_failure`` is called in the loop, at most once; it ought to ``end`` the part."""
        # Not Process.__init__: loop, bus and identity are those of the whole.
        self._whole = whole
        self.config = config
        self.name, self.folder, self.item = whole.name, whole.folder, item
        self.runtime, self.state_dir = whole.runtime, whole.state_dir
        self.boot = whole.boot
        self.started_ms, self.started_s = whole.started_ms, whole.started_s
        self.log, self.stats, self.bus = whole.log, whole.stats, whole.bus
        self.live = whole.live
        self._timers_of_part: list[Timer] = []
        self._sources: list[Any] = []
        self._on_failure = on_failure
        self.ended = False

    def at(self, monotonic_s: float, fn: Callable[[], None]) -> Timer:
        """As of the process, while the part lives."""
        return self._whole.at(monotonic_s, self._guarded(fn))

    def every(
        self, interval_s: float, fn: Callable[[], None], first_s: float | None = None
    ) -> Timer:
        """As of the process, while the part lives."""
        timer = self._whole.every(interval_s, self._guarded(fn), first_s)
        self._timers_of_part.append(timer)
        return timer

    def on_readable(self, source: Any, fn: Callable[[], None], flags: int = zmq.POLLIN) -> None:
        """As of the process, while the part lives."""
        self._whole.on_readable(source, self._guarded(fn), flags)
        self._sources.append(source)

    def _guarded(self, fn: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            if self.ended:
                return
            try:
                fn()
            except Exception as e:
                if not self.ended:
                    self.ended = True
                    self._on_failure(e)

        return call

    def forget(self, source: Any) -> None:
        """Undoes ``on_readable``."""
        self._whole.forget(source)
        if source in self._sources:
            self._sources.remove(source)

    def event(self, level: str, code: str, text: str, **fields: Any) -> None:
        """As of the process; says of which part."""
        self._whole.event(level, code, text, item=self.item, **fields)

    def end(self) -> None:
        """Nothing of it is called any more."""
        self.ended = True
        for timer in self._timers_of_part:
            timer.cancel()
            timer.fn = _nothing  # the loop holds it until its time comes
        self._timers_of_part.clear()
        for source in list(self._sources):
            self.forget(source)


def _nothing() -> None:
    """What is left of a timer."""
