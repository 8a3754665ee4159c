"""Carries out what services/fleet/core decides: one thing at a time, written down first."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from services.fleet import drift
from services.fleet.centre import WAIT_S, Given
from services.fleet.core import decide as core
from services.fleet.core import health as health_of
from services.fleet.core.decide import Action, Local
from services.fleet.core.health import CENTRE, STATUS, Health, Watch
from services.fleet.core.journal import Attempt, Damaged, Journal
from services.fleet.files import Folder, Texts, read_json, write
from services.fleet.helper import Outcome, work
from services.fleet.link import REPORT_S, WATCH_WAIT_S, Link
from services.fleet.status_file import StatusFile
from services.runtime import panel
from services.runtime.background import Background
from services.runtime.failpoints import hit
from services.runtime.process import Process

TICK_S = 1.0
FILES_S = 5.0
# How often the site is asked how it is, at rest; while a change is watched, each tick.
HEALTH_S = 10.0
# Worked before: at a look of the last minute.
WORKED_S = 60.0
# After a start, readers and outputs need their time before anybody can tell what works.
SETTLE_S, SETTLE_MAX_S = 20.0, 60.0
RETRY_S = 5.0
WATCH_S = 60.0
MAX_CHECKS = 3
# What the centre takes of each.
MAX_ERROR, MAX_PROBLEMS, MAX_PROBLEM_TEXT = 4_000, 100, 1_000


class Agent:
    """One box's fleet process."""

    def __init__(self, process: Process) -> None:
        config = process.config
        self._process = process
        self._folder = Folder(process.state_dir, Path(config["config_file"]))
        self._folder.make()
        self._journal = self._load()
        self._given: Given | None = None
        self._local = Local("", False)
        self._drift: str | None = None
        self._compared: tuple[Texts, Texts] | None = None
        self._looked_s = -FILES_S
        self._health: Health | None = None
        self._asked_s = -HEALTH_S
        self._asking = False
        self._worked_s: dict[str, float] = {}
        self._watch: Watch | None = None
        self._watch_since_s = 0.0
        self._looks_anew = False
        self._busy = ""
        self._not_before_s = 0.0
        self._checks = 0
        self._trouble = ""
        """Why the last thing could not be done; it is tried again."""
        self._background = Background(process)
        self._status = StatusFile(process)
        self._link = Link(process, self._folder, self._wants, self._take, self._reached)

    def _load(self) -> Journal:
        try:
            journal = self._folder.journal()
        except Damaged as e:
            aside = self._folder.own / "journal.damaged"
            (self._folder.own / "journal.json").replace(aside)
            text = f"the journal was damaged and lies in {aside}: begun anew"
            self._process.event("error", "fleet_journal_damaged", text, error=str(e))
            return Journal()
        if journal.attempt is not None:
            # Whoever is here again in the middle of a version was killed, or restarted by it.
            self._process.log.info("going on", step=journal.step, tries=journal.attempt.tries + 1)
            journal = journal.again()
            try:
                self._folder.write_journal(journal)
            except OSError as e:
                # A full disk: this try is not counted, which is better than none at all.
                self._process.log.error("the journal cannot be written", error=str(e))
        return journal

    def open(self) -> None:
        """Begins."""
        self._process.every(TICK_S, self._tick)

    # -- the centre -----------------------------------------------------------------------

    def _wants(self) -> tuple[int, float, str]:
        target = self._given.target if self._given else None
        if self._journal.attempt is not None:
            return self._journal.attempt.target.version, WATCH_WAIT_S, ""
        if core.is_open(self._journal, target, self._local) and target is not None:
            if target.word:
                return target.version, WAIT_S, target.word
            # Another one is told at once; the same one, said anew by a person, is looked for.
            self._looks_anew = not self._looks_anew
            return (0, 0.0, "") if self._looks_anew else (target.version, WAIT_S, "")
        return self._journal.running.version if self._journal.running else 0, WAIT_S, ""

    def _take(self, given: Given) -> None:
        watch_s = self._process.config["watch_s"] or given.target.watch_s or WATCH_S
        given = Given(replace(given.target, watch_s=watch_s), given.texts)
        if self._given is None or given.target != self._given.target:
            self._process.log.info(
                "target", version=given.target.version, rollout=given.target.rollout,
                overwrite=given.target.overwrite,
            )  # fmt: skip
            self._checks = 0
        self._given = given
        if not given.target.overwrite and self._journal.overwritten is not None:
            # The word has been withdrawn: the next one is a new one.
            self._write(replace(self._journal, overwritten=None))

    def _reached(self, began_s: float) -> None:
        if self._watch is not None and began_s >= self._watch_since_s:
            self._watch.reached(time.monotonic())

    # -- looking --------------------------------------------------------------------------

    def _look_at_files(self) -> None:
        """What stands at the box, and whether that is what was applied last."""
        folder, running = self._folder, self._journal.running
        given: Texts | None = None
        if running is not None:
            try:
                given = folder.version(running.sha256)
            except (OSError, ValueError, KeyError) as e:
                self._trouble = f"the last good version cannot be read: {e}"
        target = self._given.texts if self._given else None
        seen = folder.local(target.layouts).sha256 if target else ""
        if given is not None:
            local = folder.local(given.layouts)
            name = f"version {running.version if running else 0}"
        else:
            local, name = folder.local(()), "as applied"
            applied = folder.applied()
            given = Texts(local.yaml if applied is None else applied, {})
        drifted = local != given
        if drifted and not self._local.drifted:
            text = "the configuration was changed at the box: it is left as it is"
            self._process.event("warning", "fleet_drift", text)
        self._local = Local(seen, drifted)
        if (given, local) != self._compared:
            self._compared = given, local
            config_name = folder.config_file.name
            self._drift = drift.diff(given, local, config_name, name) if drifted else None

    def _look_at_health(self, now_s: float) -> None:
        due = now_s - self._asked_s >= (TICK_S if self._watch else HEALTH_S)
        if self._asking or not due:
            return
        self._asking, self._asked_s = True, now_s

        def done(result: Any) -> None:
            self._asking = False
            seen_s = time.monotonic()
            try:
                self._health = None if isinstance(result, Exception) else health_of.read(result)
            except (KeyError, TypeError, AttributeError):
                self._health = None
            if self._watch is not None:
                self._watch.see(self._health, seen_s)
            elif self._health is not None:
                self._worked_s[STATUS] = seen_s
                for name, works in self._health.works.items():
                    if works:
                        self._worked_s[name] = seen_s

        self._background.run(lambda: panel.ask(self._process.runtime), done)

    def _is_settled(self, now_s: float) -> bool:
        """Whether it can be told what works."""
        up_s = now_s - self._process.started_s
        if self._health is None:
            return up_s > SETTLE_MAX_S
        return up_s > SETTLE_S or all(self._health.works.values())

    # -- doing ----------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = time.monotonic()
        self._link.tick()
        self._look_at_health(now_s)
        if not self._busy:
            if now_s - self._looked_s >= FILES_S and self._journal.attempt is None:
                self._looked_s = now_s
                self._look_at_files()
            if now_s >= self._not_before_s:
                target = self._given.target if self._given else None
                action = core.decide(self._journal, target, self._local, self._watch, now_s)
                self._do(action, now_s)
        self._tell()

    def _do(self, action: Action, now_s: float) -> None:
        attempt = self._journal.attempt
        if action.what == "check" and self._given is not None:
            # Files may have changed since the last look, and are about to be replaced.
            self._look_at_files()
            again = core.decide(self._journal, self._given.target, self._local, None, now_s)
            if again.what == "check" and self._is_settled(now_s):
                self._check(self._given)
        elif action.what == "apply" and attempt is not None:
            self._work("apply", attempt.target.sha256, self._applied)
        elif action.what == "watch" and self._watch is None and attempt is not None:
            self._watch = Watch(attempt.worked, attempt.target.watch_s, now_s)
            self._watch_since_s = now_s
        elif action.what == "revert":
            text = f"going back: {action.why}"
            self._process.event("error", "fleet_going_back", text)
            self._write(self._journal.revert(action.why))
        elif action.what == "restore" and attempt is not None:
            self._work("restore", attempt.target.sha256, self._restored)
        elif action.what == "settle" and attempt is not None:
            self._settle(attempt)
        elif action.what == "leave":
            self._work("leave", "", lambda _: None)

    def _work(self, verb: str, sha256: str, done: Callable[[Outcome], None]) -> None:
        state, config_file = self._folder.state, self._folder.config_file
        self._busy = verb

        def ended(result: Any) -> None:
            self._busy = ""
            if isinstance(result, Exception):
                result = Outcome(False, False, str(result))
            self._trouble = "" if result.done else result.error
            if not result.done:
                self._not_before_s = time.monotonic() + RETRY_S
                self._process.log.warning(f"{verb} failed", error=result.error, final=result.final)
            if kept := result.answer.get("kept"):
                text = f"the files that were changed at the box are kept in {kept}"
                self._process.event("info", "fleet_local_kept", text)
            done(result)

        hit(f"fleet.{verb}")
        self._background.run(lambda: work(verb, state, config_file, sha256), ended)

    def _check(self, given: Given) -> None:
        target = given.target
        self._checks += 1
        try:
            self._folder.keep(given.texts)
        except OSError as e:
            self._trouble, self._not_before_s = f"{e}", time.monotonic() + RETRY_S
            return

        def refuse(outcome: Outcome) -> None:
            if outcome.final or self._checks >= MAX_CHECKS:
                text = f"version {target.version} is refused: {outcome.error}"
                self._process.event("error", "fleet_refused", text, problems=outcome.problems)
                self._write(self._journal.refuse(target, outcome.error, outcome.problems))

        def prepared(outcome: Outcome, leaves: bool) -> None:
            if not outcome.done:
                refuse(outcome)
                return
            now_s = time.monotonic()
            worked = [n for n, at_s in self._worked_s.items() if now_s - at_s <= WORKED_S]
            attempt = Attempt(target, (*sorted({*worked} - {CENTRE}), CENTRE), leaves)
            self._process.log.info("applying", version=target.version, worked=worked)
            self._write(self._journal.begin(attempt))

        def checked(outcome: Outcome) -> None:
            if not outcome.done:
                refuse(outcome)
                return
            leaves = bool(outcome.answer.get("leaves"))
            self._work("prepare", target.sha256, lambda o: prepared(o, leaves))

        self._work("check", target.sha256, checked)

    def _applied(self, outcome: Outcome) -> None:
        if outcome.done:
            self._process.log.info("applied; watching", said=outcome.answer.get("said"))
            self._write(self._journal.watch())
        elif outcome.final:
            self._write(self._journal.revert(outcome.error))
        else:
            self._write(self._journal.again())

    def _restored(self, outcome: Outcome) -> None:
        if outcome.done:
            attempt, why = self._journal.attempt, self._journal.reason
            version = attempt.target.version if attempt else 0
            # What worked before it is what must work again: an attempt that follows at once is
            # held to it, although nobody has had the time to see it.
            self._end_watch(attempt.worked if attempt else ())
            self._write(self._journal.reverted())
            text = f"version {version} was taken back: {why}"
            self._process.event("error", "fleet_rolled_back", text)

    def _settle(self, attempt: Attempt) -> None:
        self._end_watch()
        former = self._journal.running
        self._write(self._journal.settle())
        version = attempt.target.version
        self._process.event("info", "fleet_applied", f"version {version} is in use and works")
        self._folder.prune([attempt.target.sha256, *([former.sha256] if former else [])])

    def _end_watch(self, worked: Iterable[str] = ()) -> None:
        self._watch = None
        self._worked_s = dict.fromkeys(worked, time.monotonic())
        self._looked_s, self._asked_s = -FILES_S, -HEALTH_S

    def _write(self, journal: Journal) -> None:
        """The journal first; where the disk does not take it, nothing has happened."""
        try:
            hit("fleet.journal")
            self._folder.write_journal(journal)
        except OSError as e:
            self._trouble = f"the journal cannot be written: {e}"
            self._not_before_s = time.monotonic() + RETRY_S
            self._process.log.error("the journal cannot be written", error=str(e))
            return
        self._journal = journal
        hit("fleet.journaled")

    # -- telling --------------------------------------------------------------------------

    def _tell(self) -> None:
        journal, given = self._journal, self._given
        said = core.tell(journal, given.target if given else None, self._local)
        health = self._health
        document = {
            "version": said.target.version if said.target else None,
            "sha256": said.target.sha256 if said.target else None,
            "running": journal.running.version if journal.running else None,
            "state": said.state,
            "error": said.error and said.error[:MAX_ERROR],
            "problems": _short(said.problems),
            "software": self._link.software,
            "health": health.as_report() if health else {"plcs": {}, "outputs": {}, "pending": 0},
            "rollout": said.target.rollout if said.target else None,
            "drift": self._drift if said.state == "drift" else None,
        }
        self._link.report(document, _pause_s)
        self._keep_quota()
        who = self._link.identity
        self._status.write(
            {
                **{k: document[k] for k in ("state", "version", "running", "error", "drift")},
                "problems": document["problems"],
                "doing": self._busy,
                "trouble": self._trouble,
                "watch_left_s": self._watch and round(self._watch.left_s(time.monotonic()), 1),
                "centre": {
                    "url": self._process.config["url"],
                    "code": self._link.code,
                    "message": self._link.message,
                    "reached_ms": self._link.reached_ms,
                    "points_per_min": self._link.limits.get("points_per_min"),
                },
                "identity": who
                and {
                    "tenant": who.tenant,
                    "site": who.site,
                    "not_after_s": who.not_after_s,
                    "renew_after_s": who.renew_after_s,
                },
            }
        )

    def _keep_quota(self) -> None:
        """The number that came with the answer to a report, where the store looks for it."""
        points, who = self._link.limits.get("points_per_min"), self._link.identity
        if who is None or type(points) is not int or points < 1:
            return
        told = {"v": 1, "points_per_min": {who.tenant: points}}
        file = self._folder.quotas
        if told == read_json(file):
            return
        try:
            write(file, json.dumps(told))
        except OSError as e:  # the next report brings it again
            self._process.log.warning("quotas.json not written", error=str(e))


def _short(problems: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As many, and as much of each, as the centre takes."""
    return [
        {k: v[:MAX_PROBLEM_TEXT] if isinstance(v, str) else v for k, v in problem.items()}
        for problem in islice(problems, MAX_PROBLEMS)
    ]


def _pause_s(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How long after the last report the centre is told: what waits to be sent is no news."""
    if any(old[k] != new[k] for k in new if k != "health"):
        return 0.0
    kinds = ("plcs", "outputs")
    return HEALTH_S if any(old["health"][k] != new["health"][k] for k in kinds) else REPORT_S


def setup(process: Process) -> None:
    """The fleet process."""
    agent = Agent(process)
    agent.open()
    process.ready(url=process.config["url"])
