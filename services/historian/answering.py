"""Answers questions of other processes, one at a time, in a thread with files of its own: the
consumer goes on meanwhile.
"""

from __future__ import annotations

import threading
from pathlib import Path

import apsw

from bus.frames import Reply, Request
from bus.sockets import Port
from services.historian import oee
from services.historian.asking import answer
from services.historian.reading import History
from services.runtime.process import Process

WAIT_MS = 200


class Answering:
    """The wire ``history``."""

    def __init__(self, process: Process, folder: Path, shifts: oee.Oee | None) -> None:
        self._process = process
        self._folder = folder
        self._shifts = shifts
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Answers from now on."""
        port = self._process.bus.bind("history")
        self._thread = threading.Thread(target=self._serve, args=(port,), daemon=True)
        self._thread.start()

    def _serve(self, port: Port) -> None:
        history = History(self._folder)
        while not self._stopping.is_set():
            if not port.socket.poll(WAIT_MS):
                continue
            while (frame := port.receive()) is not None:
                port.send(self._answer(history, frame))
        history.close()

    def _answer(self, history: History, frame: object) -> Reply:
        if not isinstance(frame, Request):
            return Reply(None, "this is no question")
        try:
            if frame.verb in oee.VERBS:
                return Reply(oee.answer(self._shifts, history, frame.verb, frame.args))
            return Reply(answer(history, frame.verb, frame.args))
        except ValueError as e:
            return Reply(None, str(e))
        except apsw.Error as e:
            history.close()
            return Reply(None, f"{frame.verb}: the history cannot be read: {e}")
        except Exception as e:  # whatever a question does: the next one is answered
            history.close()
            return Reply(None, f"{frame.verb}: {e!r}")

    def close(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(3)
