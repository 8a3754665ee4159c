"""``python -P -m services.alerts --config FILE``: of a box, or of the centre."""

from __future__ import annotations

from collections.abc import Callable

from services.alerts import alarms
from services.runtime.process import Process, main


def setup(process: Process) -> Callable[[], None]:
    """The one that its configuration is for."""
    if process.config.get("where") != "centre":
        return alarms.setup(process)
    # paho and TLS: 5 MB that a box does without.
    from services.alerts import centre

    return centre.setup(process)


main("alerts", setup)
