"""The control socket: what ``plc-edge alerts`` asks of the running engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bus.frames import Reply, Request
from services.runtime.errors import Unavailable
from services.runtime.process import Process

HISTORY_ROWS = 500
RANG_ROWS = 1_000


class Asked(Protocol):
    """What answers."""

    def ringing(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Every alarm that is not ok; at most so many."""

    def count(self) -> int:
        """How many there are."""

    def history(
        self, count: int, rule: str = "", plc: str = "", before: int | None = None
    ) -> list[Any]:
        """The last transitions, newest first; of one rule or PLC, where they are named; before a
        number.
        """

    def rang(self, begin_ms: int, end_ms: int, limit: int) -> dict[str, Any]:
        """Alarms as spans of time."""

    def acknowledge(self, rule: str, only: Mapping[str, str], who: str) -> list[dict[str, Any]]:
        """Those that were."""

    def silence(
        self, rule: str, only: Mapping[str, str], for_ms: int, why: str
    ) -> list[dict[str, Any]]:
        """Those that were."""


class Control:
    """Answers requests."""

    def __init__(self, alarms: Asked) -> None:
        self._alarms = alarms

    def serve(self, process: Process) -> None:
        """Answers what comes on the wire."""
        self._port = process.bus.bind("alarms")
        process.on_readable(self._port, self._serve)

    def _serve(self) -> None:
        while (frame := self._port.receive()) is not None:
            self._port.send(self.answer(frame))

    def answer(self, frame: Any) -> Reply:
        """The answer to one request; what cannot be done is said in ``error``."""
        verbs = {
            "list": self._list,
            "history": self._history,
            "rang": self._rang,
            "ack": self._ack,
            "silence": self._silence,
        }
        if not isinstance(frame, Request) or frame.verb not in verbs:
            return Reply(None, f"unknown request; known: {', '.join(verbs)}")
        try:
            return Reply(verbs[frame.verb](frame.args))
        except Unavailable as e:
            return Reply(None, f"{frame.verb}: not kept: {e.message}")
        except (KeyError, TypeError, ValueError) as e:
            return Reply(None, f"{frame.verb}: {e.args[0] if e.args else e!r}")

    def _list(self, args: dict[str, Any]) -> Any:
        count = min(int(args.get("history", 0)), HISTORY_ROWS)
        limit = args.get("limit")
        return {
            "alarms": self._alarms.ringing(limit),
            "count": self._alarms.count(),
            "history": self._alarms.history(count),
        }

    def _history(self, args: dict[str, Any]) -> Any:
        count = min(int(args["count"]), HISTORY_ROWS)
        rule, plc = args.get("rule", ""), args.get("plc", "")
        return self._alarms.history(count, rule, plc, args.get("before"))

    def _rang(self, args: dict[str, Any]) -> Any:
        return self._alarms.rang(int(args["begin_ms"]), int(args["end_ms"]), RANG_ROWS)

    def _ack(self, args: dict[str, Any]) -> Any:
        return self._alarms.acknowledge(args["rule"], _place(args), args["who"])

    def _silence(self, args: dict[str, Any]) -> Any:
        for_ms = int(args["for_ms"])
        return self._alarms.silence(args["rule"], _place(args), for_ms, args["why"])


def _place(args: dict[str, Any]) -> dict[str, str]:
    """The parts of a place that a request names. An empty PLC means all, an empty machine none."""
    names = ("locatario", "site", "group", "machine", "field")
    place = {name: args[name] or "" for name in names if name in args}
    return place | ({"plc": args["plc"]} if args.get("plc") else {})
