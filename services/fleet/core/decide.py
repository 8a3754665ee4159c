"""The one thing to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.fleet.core.health import Watch
from services.fleet.core.journal import Journal, Target

# Whoever dies so often in the middle of a version is not made better by trying it again.
MAX_TRIES = 5

What = Literal["rest", "drift", "check", "apply", "watch", "revert", "restore", "settle", "leave"]


@dataclass(frozen=True, slots=True)
class Local:
    """The files at the box: config.yaml and the layouts that the centre has given."""

    sha256: str
    """Of all of them, as a version has it; "" where there is nothing to compare with."""
    drifted: bool
    """They are not what was applied last, from the centre or (before its first version) by hand."""


@dataclass(frozen=True, slots=True)
class Action:
    """``rest``: nothing to do · ``drift``: the files were changed here, leave them · ``check`` the
    target, and begin it where it is right · ``apply`` what was begun · ``watch``: wait ·
    ``revert``: write down that it goes back · ``restore`` what ran before · ``settle``: it has
    proved good · ``leave``: let this process go, the configuration has none.
    """

    what: What
    why: str = ""


def decide(
    journal: Journal, target: Target | None, local: Local, watch: Watch | None, now_s: float
) -> Action:
    """``target``: the centre's last word, None where it has said nothing (yet). ``watch``: of the
    version that is in place, None before it is begun.
    """
    attempt = journal.attempt
    if journal.step == "leaving":
        return Action("leave")
    if attempt is None:
        return _idle(journal, target, local)
    if journal.step == "reverting":
        return Action("restore")
    if attempt.tries > MAX_TRIES:
        return Action("revert", f"it was interrupted {attempt.tries} times")
    if journal.step == "applying":
        return Action("apply")
    if watch is None:
        return Action("watch")
    if why := watch.lost(now_s):
        return Action("revert", why)
    return Action("settle" if watch.left_s(now_s) <= 0 else "watch")


def _idle(journal: Journal, target: Target | None, local: Local) -> Action:
    rest = Action("drift" if local.drifted else "rest")
    if target is None or (journal.failed and journal.failed.target.key == target.key):
        return rest
    if not local.drifted:
        return rest if runs(journal, target) else Action("check")
    # Who has changed it here may have told the centre, which now says the same.
    agreed = target.sha256 == local.sha256
    may_overwrite = target.overwrite and target.key != journal.overwritten
    return Action("check") if agreed or may_overwrite else rest


def runs(journal: Journal, target: Target) -> bool:
    """Whether the target is what proved good last."""
    running = journal.running
    return running is not None and running.key[:2] == target.key[:2]


@dataclass(frozen=True, slots=True)
class Said:
    """What the centre is told of all this."""

    state: str
    """applying | watching | applied | refused | rolled_back | drift"""
    target: Target | None
    """The version it speaks of."""
    error: str | None = None
    problems: tuple[Mapping[str, Any], ...] = ()


def tell(journal: Journal, target: Target | None, local: Local) -> Said:
    """The state in the centre's words."""
    failed = journal.failed
    if journal.attempt is not None:
        state = "applying" if journal.step == "applying" else "watching"
        return Said(state, journal.attempt.target, journal.reason or None)
    if local.drifted:
        return Said("drift", target or journal.running)
    if failed is not None and (target is None or failed.target.key == target.key):
        return Said(failed.outcome, failed.target, failed.error, failed.problems)
    return Said("applied", journal.running)


def is_open(journal: Journal, target: Target | None, local: Local) -> bool:
    """Whether the target is not in use and nothing more will be done for it without a new word."""
    return tell(journal, target, local).state in ("drift", "refused", "rolled_back")
