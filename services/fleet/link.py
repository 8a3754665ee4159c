"""The connection to the centre: claims, renews, waits for the target, reports. One call of each
kind at a time, in a thread; what comes of it, in the loop.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from services.fleet import identity
from services.fleet.centre import WAIT_S, Centre, CentreUnavailable, Given
from services.fleet.files import Folder
from services.fleet.identity import Identity
from services.runtime import files
from services.runtime.background import Background
from services.runtime.errors import PlcEdgeError
from services.runtime.process import Process

BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 60.0
# Where the centre says at once what it has said before.
SOON_S = 5.0
# A code that is refused is not made better by asking: but a new one may be written to the file.
CLAIM_RETRY_S = 300.0
REPORT_S = 60.0
# While a change is watched it is known within that whether the centre can still be reached.
WATCH_WAIT_S = 5.0
LOOK_S = 2.0


class Backoff:
    """When to try again: doubling, with jitter, so that a thousand boxes do not come as one."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self._wait_s = BACKOFF_MIN_S

    def failed(self, at_least_s: float = 0.0, at_most_s: float = BACKOFF_MAX_S) -> None:
        """Waits, longer each time."""
        wait_s = max(at_least_s, min(self._wait_s, at_most_s)) * random.uniform(0.5, 1.0)
        self.at_s = time.monotonic() + max(wait_s, at_least_s)
        self._wait_s = min(2 * self._wait_s, BACKOFF_MAX_S)

    def worked(self, pause_s: float = 0.0) -> None:
        """The next after a pause."""
        self._wait_s = BACKOFF_MIN_S
        self.at_s = time.monotonic() + pause_s * random.uniform(0.8, 1.2)


class Link:
    """``wants()``: (the version we have, seconds to wait for another, the word by which it came).
    ``reached(began_s)``: a call that began then was answered well.
    """

    def __init__(
        self,
        process: Process,
        folder: Folder,
        wants: Callable[[], tuple[int, float, str]],
        given: Callable[[Given], None],
        reached: Callable[[float], None],
    ) -> None:
        config = process.config
        self._process, self._folder = process, folder
        self._url, self._ca = config["url"], config["ca"]
        self._code_file = Path(config["claim_file"]) if config["claim_file"] else None
        self._wants, self._given, self._reached = wants, given, reached
        self._background = Background(process)
        self._centre: Centre | None = None
        self._identity: Identity | None = None
        self._looked_s = 0.0
        self._poll, self._report, self._renewal = Backoff(), Backoff(), Backoff()
        self._polling = self._reporting = False
        self._said: dict[str, Any] | None = None
        self._said_s = 0.0
        self._last: Given | None = None
        self._faults: dict[str, tuple[str, str]] = {"poll": ("unclaimed", "not claimed yet")}
        """By kind of call: that reports are taken mends no target that nobody understands."""
        self._refused = ""
        """A digest of the code that the centre has refused; it is asked again now and then."""
        self.reached_ms: int | None = None
        """When the centre last answered well, Unix ms."""
        self.limits: dict[str, Any] = {}
        """What the centre answers to reports: ``points_per_min``."""
        self.software = installed("plc-edge")

    @property
    def code(self) -> str:
        """One stable word for what is wrong; "" while all is well."""
        return self._fault_of[0]

    @property
    def message(self) -> str:
        """The same in words."""
        return self._fault_of[1]

    @property
    def _fault_of(self) -> tuple[str, str]:
        return self._faults.get("poll") or self._faults.get("report") or ("", "")

    @property
    def identity(self) -> Identity | None:
        """Who we are to the centre; None while the box is not claimed."""
        return self._identity

    def tick(self) -> None:
        """Starts what is due; once a second."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        if self._polling:
            return
        if self._refused and digest(self._new_code()) != self._refused:
            self._refused, self._poll = "", Backoff()  # another code is in the file
        if now_s < self._poll.at_s:
            return
        if self._identity is None or (self.code in ("tls_client_certificate", "not_accepted")):
            code = self._new_code()
            if code:
                self._claim(code)
                return
        if self._identity is None:
            self._fault(
                "poll", "unclaimed", "not claimed: `plc-edge fleet claim`, or `fleet.claim_file`"
            )
        elif time.time() >= self._identity.renew_after_s and now_s >= self._renewal.at_s:
            self._renew(self._identity)
        else:
            self._ask(self._identity)

    def _look(self) -> None:
        """``plc-edge fleet claim`` may have given us another identity."""
        found = identity.load(self._folder.own)
        if found != self._identity:
            self._identity, self._centre = found, None
            self._poll, self._report = Backoff(), Backoff()
            if found is not None:
                where = f"{found.tenant}/{found.site}"
                self._process.event("info", "fleet_claimed", f"this box is {where} of {self._url}")

    # -- claiming and renewing ------------------------------------------------------------

    def _new_code(self) -> str:
        """The code in the claim's file, where it has not been used yet."""
        if self._code_file is None:
            return ""
        try:
            code = files.read(self._code_file, files.SECRET_MAX_BYTES).decode().strip()
        except (files.Unreadable, UnicodeDecodeError):
            return ""
        used = self._identity.code if self._identity else ""
        return "" if digest(code) == used else code

    def _claim(self, code: str) -> None:
        own, url, ca, software = self._folder.own, self._url, self._ca, self.software

        def work() -> Identity:
            return claim(own, url, ca, code, software)

        def done(result: Any) -> None:
            if isinstance(result, Identity):
                text = "the one-time code has been used: its file may be deleted"
                self._process.log.info(text, file=str(self._code_file))
                self._poll.worked()
                self._look()
            else:
                refused = getattr(result, "code", "") == "claim"
                self._refused = digest(code) if refused else ""
                self._failed("poll", result, self._poll, CLAIM_RETRY_S if refused else 0.0)

        self._run(work, done)

    def _renew(self, who: Identity) -> None:
        own, url = self._folder.own, self._url

        def work() -> Identity:
            answer = self._open().renew(who, identity.request(own))
            return identity.store(own, answer, url, who)

        def done(result: Any) -> None:
            if isinstance(result, Identity):
                self._process.event("info", "fleet_renewed", "the certificate was renewed")
                self._renewal.worked()
                self._look()
            else:
                self._failed("poll", result, self._renewal)

        self._run(work, done)

    # -- target and report ----------------------------------------------------------------

    def _ask(self, who: Identity) -> None:
        have, wait_s, word = self._wants()
        if self.code:
            wait_s = 0.0  # to know at once that it answers again
        began_s = time.monotonic()

        def done(result: Any) -> None:
            if isinstance(result, Exception):
                self._failed("poll", result, self._poll)
                return
            self._worked("poll", began_s)
            news = isinstance(result, Given) and result != self._last
            quick = time.monotonic() - began_s < min(1.0, wait_s)
            self._poll.worked(SOON_S if quick and not news else 0.0)
            if isinstance(result, Given):
                self._last = result
                self._given(result)

        self._run(lambda: self._open().target(who, have, min(wait_s, WAIT_S), word), done)

    def report(self, document: dict[str, Any], pause_s: Callable[[Any, Any], float]) -> None:
        """Tells the centre, once a minute, and sooner what is new: ``pause_s(old, new)`` after the
        last report.
        """
        began_s, who = time.monotonic(), self._identity
        if who is None or self._reporting or began_s < self._report.at_s:
            return
        news = self._said is None or pause_s(self._said, document) < REPORT_S
        if self._said is not None:
            wait_s = min(REPORT_S, pause_s(self._said, document))
            if began_s < self._said_s + wait_s:
                return
        self._reporting = True

        def done(result: Any) -> None:
            self._reporting = False
            if isinstance(result, Exception):
                self._said = None
                at_most_s = WATCH_WAIT_S if news else BACKOFF_MAX_S
                self._failed("report", result, self._report, at_most_s=at_most_s)
                return
            self._said, self._said_s, self.limits = document, began_s, result
            self._report.worked()
            self._worked("report", began_s)

        self._background.run(lambda: self._open().report(who, document), done)

    # -- what came of it ------------------------------------------------------------------

    def _run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._polling = True

        def ended(result: Any) -> None:
            self._polling = False
            done(result)

        self._background.run(work, ended)

    def _open(self) -> Centre:
        """In a thread; two that make one each do no harm."""
        centre = self._centre
        if centre is None:
            centre = self._centre = Centre(self._url, self._ca, self._folder.own / "box.pem")
        return centre

    def _worked(self, kind: str, began_s: float) -> None:
        self.reached_ms = time.time_ns() // 1_000_000
        if self._faults.pop(kind, None) and not self._faults:
            self._process.event("info", "fleet_centre_back", f"{self._url} answers")
        self._reached(began_s)

    def _failed(
        self,
        kind: str,
        error: Any,
        backoff: Backoff,
        at_least_s: float = 0.0,
        at_most_s: float = BACKOFF_MAX_S,
    ) -> None:
        if isinstance(error, CentreUnavailable):
            at_least_s = max(at_least_s, error.fields.get("retry_after_s", 0.0))
            self._fault(kind, error.code, self._dated(error))
        elif isinstance(error, PlcEdgeError | OSError):
            self._fault(kind, "identity", str(error))
        else:
            raise error
        self._centre = None
        backoff.failed(at_least_s, at_most_s)

    def _dated(self, error: CentreUnavailable) -> str:
        who = self._identity
        if who is not None and time.time() > who.not_after_s:
            return f"our certificate has expired; {error.message}"
        return error.message

    def _fault(self, kind: str, code: str, message: str) -> None:
        if code not in {c for c, _ in self._faults.values()}:
            self._process.event("warning", f"fleet_{code}", message)
        self._faults[kind] = code, message


def digest(code: str) -> str:
    """By which a code that has been used is known again."""
    return hashlib.sha256(b"plc-edge claim\0" + code.encode()).hexdigest()


def claim(own: Path, url: str, ca: str | None, code: str, software: str) -> Identity:
    """Claims the box: a key, a request, a certificate. Raises PlcEdgeError."""
    centre = Centre(url, ca)
    try:
        answer = centre.claim(code, identity.request(own), software)
    finally:
        centre.close()
    return identity.store(own, answer, url, code=digest(code))
