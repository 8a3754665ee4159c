"""What the box remembers of its configuration from afar, whatever happens to it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

Step = Literal["idle", "applying", "watching", "reverting", "leaving"]
STEPS: tuple[Step, ...] = ("idle", "applying", "watching", "reverting", "leaving")
Outcome = Literal["refused", "rolled_back"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """The version that the centre wants here."""

    version: int
    sha256: str
    """Of ``json.dumps([yaml, layouts], sort_keys=True)``."""
    rollout: str | None = None
    watch_s: float = 60.0
    overwrite: bool = False
    """What was changed at the box may be overwritten."""
    word: str = ""
    """Another one each time that a person has said it anew; "" where the centre does not tell."""

    @property
    def key(self) -> tuple[int, str, str | None, str]:
        """What makes it another one than one that has failed."""
        return self.version, self.sha256, self.rollout, self.word


@dataclass(frozen=True, slots=True)
class Attempt:
    """A version on its way in."""

    target: Target
    worked: tuple[str, ...] = ()
    """What worked just before (services/fleet/core/health.py), and "centre"."""
    leaves: bool = False
    """The new configuration has no ``fleet:``: once it is good, this process goes."""
    tries: int = 0
    """How often it was begun: each time that the process or the box died meanwhile counts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that did not stay."""

    target: Target
    outcome: Outcome
    error: str
    problems: tuple[Mapping[str, Any], ...] = ()
    """As ``check`` says them."""


@dataclass(frozen=True, slots=True)
class Journal:
    """Written before each step is begun, so that a killed process knows which one it was."""

    step: Step = "idle"
    running: Target | None = None
    """The last version that proved good; None where the centre has not given any."""
    attempt: Attempt | None = None
    """Not None while a step other than idle is under way."""
    failed: Failure | None = None
    """The last one, until another version is good."""
    overwritten: tuple[int, str, str | None, str] | None = None
    """The target whose leave to overwrite has been used: it holds once."""
    reason: str = ""
    """Why it goes back, while it does."""

    def begin(self, attempt: Attempt) -> Journal:
        """A version is about to be put in place."""
        return replace(self, step="applying", attempt=attempt, reason="")

    def again(self) -> Journal:
        """What was under way is begun once more, after an interruption."""
        assert self.attempt is not None
        return replace(self, attempt=replace(self.attempt, tries=self.attempt.tries + 1))

    def watch(self) -> Journal:
        """It is in place."""
        return replace(self, step="watching")

    def revert(self, reason: str) -> Journal:
        """It did harm."""
        return replace(self, step="reverting", reason=reason)

    def reverted(self) -> Journal:
        """What ran before runs again."""
        assert self.attempt is not None
        failed = Failure(self.attempt.target, "rolled_back", self.reason)
        return replace(self, step="idle", attempt=None, failed=failed, reason="")

    def refuse(
        self, target: Target, error: str, problems: tuple[Mapping[str, Any], ...]
    ) -> Journal:
        """It was not even begun."""
        return replace(self, failed=Failure(target, "refused", error, problems))

    def settle(self) -> Journal:
        """It has proved good."""
        assert self.attempt is not None
        target = self.attempt.target
        step: Step = "leaving" if self.attempt.leaves else "idle"
        overwritten = target.key if target.overwrite else None
        return Journal(step, running=target, overwritten=overwritten)

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


class Damaged(ValueError):
    """A journal that cannot be understood."""


def from_json(data: Any) -> Journal:
    """The journal of ``as_json``. Raises Damaged."""
    try:
        step = data["step"]
        if step not in STEPS:
            raise Damaged(f"there is no step {step!r}")
        attempt, failed = data["attempt"], data["failed"]
        if (step in ("applying", "watching", "reverting")) != (attempt is not None):
            raise Damaged(f"step {step} {'with' if attempt else 'without'} a version")
        overwritten = data["overwritten"]
        return Journal(
            step,
            running=_target(data["running"]) if data["running"] else None,
            attempt=attempt
            and _made(
                Attempt,
                attempt,
                target=_target(attempt["target"]),
                worked=tuple(attempt["worked"]),
            ),
            failed=failed
            and _made(
                Failure,
                failed,
                target=_target(failed["target"]),
                problems=tuple(failed["problems"]),
            ),
            overwritten=tuple(overwritten) if overwritten else None,
            reason=data["reason"],
        )
    except (KeyError, TypeError) as e:
        raise Damaged(f"{e!r}") from None


def _target(data: dict[str, Any]) -> Target:
    return _made(Target, data)


def _made(kind: type[T], data: dict[str, Any], **instead: Any) -> T:
    """Keys of another version of this program are left out."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in {**data, **instead}.items() if k in known})
