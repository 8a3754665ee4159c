"""The control socket: what ``plc-edge store`` asks of the running store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import apsw

from bus.frames import Reply, Request
from services.runtime.process import Process
from services.store_forward.outbox import DiskFull, Outbox

# Rows in one answer: a socket is no place for a whole outbox.
PAGE_ROWS = 500


class Stored(Protocol):
    """What can be asked about: the running store, or its files."""

    outbox: Outbox

    @property
    def outputs(self) -> Mapping[str, object]:
        """By name."""

    def status(self) -> dict[str, Any]:
        """The whole of it."""


class Control:
    """Answers requests; each verb is a method here."""

    def __init__(self, store: Stored) -> None:
        self._store = store

    def serve(self, process: Process) -> None:
        """Answers what comes on the control wire."""
        self._port = process.bus.bind("control")
        process.on_readable(self._port, self._serve)

    def _serve(self) -> None:
        while (frame := self._port.receive()) is not None:
            self._port.send(self.answer(frame))

    def answer(self, frame: Any) -> Reply:
        """The answer to one request; what cannot be done is said in ``error``."""
        verbs = {
            "status": self._status,
            "rows": self._rows,
            "dead": self._dead,
            "verify": self._verify,
            "retry": self._retry,
            "purge": self._purge,
        }
        if not isinstance(frame, Request) or frame.verb not in verbs:
            return Reply(None, f"unknown request; known: {', '.join(verbs)}")
        output = frame.args.get("output")
        if output is not None and output not in self._store.outputs:
            known = ", ".join(sorted(self._store.outputs))
            return Reply(None, f"there is no output {output!r}; configured: {known}")
        try:
            return Reply(verbs[frame.verb](frame.args))
        except DiskFull as e:
            return Reply(None, f"the disk is full, nothing was changed: {e}")
        except (apsw.Error, OSError) as e:
            folder = self._store.outbox.folder
            words = f"{type(e).__name__}: {e}; look at the disk of {folder} (`df {folder}`)"
            return Reply(None, f"{frame.verb}: nothing was changed: {words}")
        except (KeyError, TypeError, ValueError) as e:
            return Reply(None, f"{frame.verb}: bad arguments: {e!r}")

    def _status(self, _: dict[str, Any]) -> Any:
        return {**self._store.status(), "dead": self._store.outbox.state.dead()}

    def _rows(self, args: dict[str, Any]) -> Any:
        """The next page of an output's undelivered rows behind ``after``: [[pos, body], …]. With
        ``all`` also of the delivered ones that are still there.
        """
        outbox = self._store.outbox
        name, after = args["output"], int(args.get("after", 0))
        if not args.get("all"):
            after = max(after, outbox.cursors[name].done)
        return [[r.pos, r.body] for r in outbox.read(name, "live", after, PAGE_ROWS)]

    def _verify(self, args: dict[str, Any]) -> Any:
        """Checks segment number ``segment``: {"segments", "name", "problem"}; one per request, so
        that acknowledgements do not wait for all of them.
        """
        segments = self._store.outbox.segments
        number = int(args.get("segment", 0))
        if number >= len(segments):
            return {"segments": len(segments), "name": "", "problem": ""}
        segment = segments[number]
        return {
            "segments": len(segments),
            "name": segment.path.name,
            "problem": segment.verify(),
        }

    def _dead(self, args: dict[str, Any]) -> Any:
        rows = self._store.outbox.state.dead_rows(args["output"])
        return [[r.pos, r.body] for r in rows]

    def _retry(self, args: dict[str, Any]) -> Any:
        return self._store.outbox.retry_dead(args["output"])

    def _purge(self, args: dict[str, Any]) -> Any:
        name = args["output"]
        if args.get("dead"):
            count = self._store.outbox.state.dead_count(name)
            self._store.outbox.state.purge_dead(name)
            return count
        return self._store.outbox.purge(name)
