"""What a roll-out does next. Pure: what is so far, what the boxes said, what time it is.

A roll-out brings a version to each of its boxes, stage by stage. A stage begins when every box of
the one before has applied its version. One box that refuses it, goes back by itself, has drifted
or is not done in time ends it: every box that was sent a version is sent back to the one it had.

``step`` may be repeated at any time with the same answer: nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

# States of a roll-out. A halted one begins no stage; what was sent is watched all the same.
RUNNING, HALTED, ROLLING_BACK = "running", "halted", "rolling_back"
DONE, ROLLED_BACK = "done", "rolled_back"
ACTIVE = (RUNNING, HALTED, ROLLING_BACK)

# States of one box in it.
WAITING, SENT, APPLIED, FAILED = "waiting", "sent", "applied", "failed"
RETURNING, RETURNED = "returning", "returned"
KEPT = "kept"
"""It may hold the new version: the centre knows none that it had before."""
MISSING = "missing"
"""Sent back, and not heard to be back; its target is the old version whenever it asks."""

# What a box reports (``state``), and of its own accord none of ours.
R_APPLIED, R_REFUSED, R_ROLLED_BACK, R_DRIFT = "applied", "refused", "rolled_back", "drift"
TIMEOUT, BY_HAND = "timeout", "asked for"

Targets = dict[str, int | None]
"""Site -> the version it must have from now on; None: none."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a roll-out."""

    site: str
    stage: int
    """From 0."""
    version: int
    previous: int | None
    """What it had when the roll-out was made; None: nothing that the centre knows."""
    state: str = WAITING
    asked_ms: int = 0
    """When it was last sent something."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """All of one."""

    id: str
    timeout_ms: int
    boxes: tuple[Box, ...]
    state: str = RUNNING
    stage: int = -1
    """The one under way; -1: none has begun."""
    reason: str = ""
    """Why it was sent back."""

    def of_stage(self, stage: int) -> list[Box]:
        """Its boxes."""
        return [b for b in self.boxes if b.stage == stage]


@dataclass(frozen=True, slots=True)
class Heard:
    """A box's last report."""

    seen_ms: int
    """When the box last spoke."""
    changed_ms: int
    """When it first said this."""
    state: str
    version: int | None
    """Of which the state speaks."""
    running: int | None
    rollout: str | None


def plan(sites: Sequence[str], percent: Sequence[int]) -> list[list[str]]:
    """Stages by share: ``percent`` rises to 100, and each is how much has been reached at the end
    of its stage, rounded up. Stages without a box are left out.
    """
    ends = [-(-len(sites) * p // 100) for p in percent]
    stages = [list(sites[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    return [stage for stage in stages if stage]


def step(
    rollout: Rollout, heard: Mapping[str, Heard], now_ms: int, up_since_ms: int = 0
) -> tuple[Rollout, Targets]:
    """The roll-out after what the boxes said, and the targets that change.

    A box is late by the time in which it could have said something: from ``up_since_ms`` on, when
    the centre began to listen.
    """
    if rollout.state in (RUNNING, HALTED):
        rollout = _judged(rollout, heard, now_ms, up_since_ms)
        failed = [b for b in rollout.boxes if b.state == FAILED]
        if failed:
            named = ", ".join(f"{b.site}: {b.why}" for b in failed[:5])
            return send_back(rollout, named, now_ms)
        if rollout.state == RUNNING:
            return _next_stage(rollout, heard, now_ms)
    elif rollout.state == ROLLING_BACK:
        return _returned(rollout, heard, now_ms, up_since_ms), {}
    return rollout, {}


def send_back(
    rollout: Rollout, reason: str, now_ms: int, only: Iterable[str] | None = None
) -> tuple[Rollout, Targets]:
    """Every box that was sent something (of those in ``only``) is sent what it had before."""
    targets: Targets = {}
    boxes = []
    among = None if only is None else set(only)
    for box in rollout.boxes:
        if box.state in (SENT, APPLIED, FAILED) and (among is None or box.site in among):
            went_back = box.state == FAILED and box.why.startswith((R_REFUSED, R_ROLLED_BACK))
            if box.previous is not None:
                targets[box.site] = box.previous
                box = replace(box, state=RETURNING, asked_ms=now_ms)
            elif box.state == APPLIED:
                box = replace(box, state=KEPT)
            else:
                targets[box.site] = None
                box = replace(box, state=RETURNED if went_back else KEPT)
        boxes.append(box)
    return _ended(replace(rollout, state=ROLLING_BACK, reason=reason, boxes=tuple(boxes))), targets


def _judged(rollout: Rollout, heard: Mapping[str, Heard], now_ms: int, up_since_ms: int) -> Rollout:
    def judge(box: Box) -> Box:
        if box.state != SENT:
            return box
        said = heard.get(box.site)
        if said is not None and _has(said, box.version):
            return replace(box, state=APPLIED)
        why = _trouble(rollout, box, said)
        if not why and now_ms - max(box.asked_ms, up_since_ms) > rollout.timeout_ms:
            why = TIMEOUT
        return replace(box, state=FAILED, why=why) if why else box

    return replace(rollout, boxes=tuple(map(judge, rollout.boxes)))


def _has(said: Heard, version: int) -> bool:
    return said.state == R_APPLIED and said.version == version


def _trouble(rollout: Rollout, box: Box, said: Heard | None) -> str:
    """What a report says against the version that was sent; nothing where it speaks of another."""
    if said is None:
        return ""
    if said.state == R_DRIFT:
        return R_DRIFT
    # A version may have failed on this box before: only what follows from this roll-out counts.
    ours = said.rollout == rollout.id or (said.rollout is None and said.changed_ms >= box.asked_ms)
    bad = said.state in (R_REFUSED, R_ROLLED_BACK) and said.version == box.version
    return said.state if ours and bad else ""


def _next_stage(
    rollout: Rollout, heard: Mapping[str, Heard], now_ms: int
) -> tuple[Rollout, Targets]:
    targets: Targets = {}
    stages = 1 + max(b.stage for b in rollout.boxes)
    while all(b.state == APPLIED for b in rollout.of_stage(rollout.stage)):
        if rollout.stage + 1 == stages:
            return replace(rollout, state=DONE), targets
        boxes = []
        for box in rollout.boxes:
            if box.stage == rollout.stage + 1:
                said = heard.get(box.site)
                there = said is not None and _has(said, box.version)
                box = replace(box, state=APPLIED if there else SENT, asked_ms=now_ms)
                targets[box.site] = box.version
            boxes.append(box)
        rollout = replace(rollout, stage=rollout.stage + 1, boxes=tuple(boxes))
    return rollout, targets


def _returned(
    rollout: Rollout, heard: Mapping[str, Heard], now_ms: int, up_since_ms: int
) -> Rollout:
    def judge(box: Box) -> Box:
        if box.state != RETURNING:
            return box
        said = heard.get(box.site)
        # Only what it says after it was asked: before, it may have taken the new version already.
        if said is not None and said.seen_ms > box.asked_ms:
            running = said.running
            if running is None and said.state == R_APPLIED:
                running = said.version
            if running == box.previous and said.state in (R_APPLIED, R_REFUSED, R_ROLLED_BACK):
                return replace(box, state=RETURNED)
            if said.state == R_DRIFT:  # it takes nothing until a person has decided
                return replace(box, state=MISSING)
        if now_ms - max(box.asked_ms, up_since_ms) > rollout.timeout_ms:
            return replace(box, state=MISSING)
        return box

    return _ended(replace(rollout, boxes=tuple(map(judge, rollout.boxes))))


def _ended(rollout: Rollout) -> Rollout:
    if any(b.state == RETURNING for b in rollout.boxes):
        return rollout
    return replace(rollout, state=ROLLED_BACK)
