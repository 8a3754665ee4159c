"""One output: a consumer whose rows are settled by the acknowledgements of its destination.

Owns no database (``reduce`` apart): what is unsettled when this process dies comes again from the
store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bus.frames import Heartbeat
from services.consumer.intake import Intake
from services.consumer.row import Row
from services.consumer.source import Source, Taker
from services.publisher.backfill import Backfill
from services.publisher.beats import Beats
from services.publisher.outputs import make
from services.runtime.process import Process


class Publisher:
    """Hands rows to the output, which reports to the intake (``Desk``), and heartbeats."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._intake = _source(process, self)
        self._backfill: Backfill | None = None
        if process.config.get("history"):
            self._backfill = Backfill(process, self._intake)
        self._output = make(process, self._backfill or self._intake)
        site, only = process.config["site"], process.config["output"].get("locatarios")
        self._beats = Beats(site, only, self._output.beat)
        self._beats.configure(process.config["plcs"])

    def open(self) -> None:
        """Asks the store for rows."""
        self._intake.open()
        if self._backfill is not None:
            self._backfill.open(self._output)
        self._process.every(1.0, self._beats.tick)
        self._process.on_config(lambda config: self._beats.configure(config["plcs"]))

    @property
    def window(self) -> int:
        """The output's."""
        return self._output.window

    @property
    def target(self) -> str:
        """The output's."""
        return self._output.target

    def begin(self) -> None:
        """The ledger keeps what an earlier session left in flight from settling anything."""

    def take(self, rows: Sequence[Row]) -> None:
        """To the output."""
        self._output.deliver(rows)

    def beat(self, beat: Heartbeat) -> None:
        """To the topics that show how PLCs are."""
        self._beats.receive(beat)

    def details(self) -> dict[str, object]:
        """The output's."""
        return self._output.details()

    def close(self) -> None:
        """Waits a moment for what is in flight and says what arrived."""
        self._output.close()
        if self._backfill is not None:
            self._backfill.close()
        self._intake.close()


def _source(process: Process, taker: Taker) -> Source:
    """The store's rows, or what is made of them."""
    if process.config["output"].get("reduce") is None:
        return Intake(process, taker)
    # SQLite, 2 MB: other outputs have no database.
    from services.publisher.reduce.source import Reduced

    return Reduced(process, taker)


def setup(process: Process) -> Callable[[], None]:
    """Starts the output that the configuration names."""
    publisher = Publisher(process)
    publisher.open()
    process.ready(output=process.item, type=process.config["output"]["type"])
    return publisher.close
