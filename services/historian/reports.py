"""Sends each shift's report by e-mail, once, when what the shift was is known.

Which shifts are done stands in ``reports.json`` beside the history. A process that dies between
the server's answer and that note sends the same message again, under the same Message-ID: there is
no other way to be sure that it was sent. A shift that cannot be reported is told as an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson

from services.historian.bounds import Bound
from services.historian.oee import Oee, answer
from services.historian.reading import History
from services.oee.core.calendar import Shift
from services.oee.report import report
from services.runtime import files, mail
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.errors import PlcEdgeError, Refused, Unavailable
from services.runtime.process import Process

FILE = "reports.json"
LOOK_S = 5.0
REMEMBERED = 400
# After its end, for what was under way.
SETTLE_MS = 60_000
# So long (after the shift's end, or the start of this process) it is waited for rows that are newer
# than the shift: the store may have much to tell, or nothing speaks any more.
CATCH_UP_MS = 3_600_000
RETRY_S, RETRY_MAX_S = 30.0, 1_800.0
# Shifts that ended longer ago are nobody's business any more.
FORGOTTEN_MS = 40 * 86_400_000
# A report reads a whole shift, and may take its time.
DEADLINE_S = 120.0


class Reports:
    """Of one box. ``newest``: Unix ms of the newest row that was kept, None without any."""

    def __init__(
        self,
        process: Process,
        folder: Path,
        spec: dict[str, Any],
        newest: Callable[[], int | None],
    ) -> None:
        self._process = process
        self._folder = folder
        self._spec = spec
        self._email: dict[str, Any] = spec["email"]
        self._oee = Oee(spec)
        self._newest = newest
        self._background = Background(process)
        self._busy = False
        self._failures = 0
        self._again_s = 0.0
        self._done: dict[str, str] = {}
        """Shift's id -> ``sent``, ``refused`` or ``late``."""
        self._since_ms = now_ms()

    def open(self) -> None:
        """Takes up what an earlier life knew. The first begins with the shift that is worked now:
        a new receiver is not told of the past.
        """
        try:
            kept = orjson.loads((self._folder / FILE).read_bytes())
            self._since_ms, self._done = int(kept["since_ms"]), dict(kept["done"])
        except FileNotFoundError:
            self._save()
        except (OSError, ValueError, KeyError, TypeError) as e:
            text = f"{self._folder / FILE} was damaged: reports go on from now ({e!r})"
            self._process.event("error", "report_memory_damaged", text)
            self._save()
        self._process.every(LOOK_S, self._look)

    def _save(self) -> None:
        """What cannot be kept is forgotten where this process ends before the disk has room."""
        kept = {"since_ms": self._since_ms, "done": self._done}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(self._folder / FILE, orjson.dumps(kept))
        except OSError as e:
            text = f"which shifts were reported could not be kept: {e}"
            self._process.event("warning", "report_memory_failed", text)

    def due(self, now: int) -> Shift | None:
        """The oldest shift that has ended and is not reported, once its rows are here."""
        begin = max(self._since_ms, now - FORGOTTEN_MS)
        for shift in self._oee.calendar.between(begin, now + 1):
            if shift.id in self._done or not self._since_ms < shift.end_ms <= now - SETTLE_MS:
                continue
            newest = self._newest()
            behind = newest is None or newest < shift.end_ms
            waited_ms = now - max(shift.end_ms, self._process.started_ms)
            return None if behind and waited_ms < CATCH_UP_MS else shift
        return None

    def _look(self) -> None:
        now = now_ms()
        if self._busy or time.monotonic() < self._again_s:
            return
        shift = self.due(now)
        if shift is None:
            return
        if now > shift.end_ms + round(self._email["late_after"] * 1_000):
            self._end(shift, "late", f"the report of shift {shift.id} could not be sent in time")
            return
        self._busy = True
        self._background.run(lambda: self._send(shift), lambda result: self._sent(shift, result))

    def _send(self, shift: Shift) -> None:
        history = History(self._folder)
        try:
            bound = Bound(None, DEADLINE_S)
            said = answer(self._oee, history, "oee", {"shift": shift.id}, bound)
        finally:
            history.close()
        mail.send(self._email, self._message(shift, said))

    def _message(self, shift: Shift, said: dict[str, Any]) -> EmailMessage:
        email, site = self._email, self._spec["site"]
        found = report(said, email["language"], site)
        message = EmailMessage()
        message["From"] = email["from"]
        message["To"] = ", ".join(email["to"])
        message["Subject"] = found.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<shift-{shift.id.replace('/', '-')}@{site}.plc-edge>"
        message.set_content(found.text)
        message.add_alternative(found.html, subtype="html")
        name = f"{shift.id.replace('/', '-')}.html"
        message.add_attachment(found.html, subtype="html", filename=name)
        return message

    def _sent(self, shift: Shift, result: Any) -> None:
        self._busy = False
        if isinstance(result, Refused):
            self._end(shift, "refused", f"the report of shift {shift.id} is refused: {result}")
        elif isinstance(result, Exception):
            self._failed(shift, result)
        else:
            self._failures = 0
            self._end(shift, "sent", "")

    def _failed(self, shift: Shift, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            known = isinstance(error, PlcEdgeError | ValueError)
            why = error.message if isinstance(error, Unavailable) else str(error)
            text = f"the report of shift {shift.id} cannot be sent: {why if known else repr(error)}"
            self._process.event("warning", "report_failed", text)
        self._count("failed")
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._failures - 1, 10))
        self._again_s = time.monotonic() + pause_s

    def _end(self, shift: Shift, how: str, text: str) -> None:
        """Kept first, told then."""
        self._done[shift.id] = how
        self._done = dict(sorted(self._done.items())[-REMEMBERED:])
        self._save()
        sent = f"the report of shift {shift.id} was sent to {len(self._email['to'])} receivers"
        self._process.event("error" if text else "info", f"report_{how}", text or sent)
        self._count(how)

    def _count(self, result: str) -> None:
        self._process.stats.counter("plc_edge_shift_reports_total", result=result).inc()
