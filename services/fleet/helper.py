"""Starts ``services.fleet.work`` and reads its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.runtime.errors import EXIT_OK, EXIT_USAGE

# Stopping and starting 200 processes, and another apply before.
WORK_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    done: bool
    final: bool
    """Trying again would change nothing."""
    error: str = ""
    problems: tuple[dict[str, Any], ...] = ()
    answer: dict[str, Any] = field(default_factory=dict)


def work(verb: str, state: Path, config_file: Path, sha256: str) -> Outcome:
    """Blocks until it is done; raises nothing."""
    command = [sys.executable, "-P", "-m", "services.fleet.work", verb, str(state)]
    try:
        # A session of its own: it must end what it has begun, also when we are stopped meanwhile.
        done = subprocess.run(
            [*command, str(config_file), sha256],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=WORK_S,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(False, False, f"{verb} did not end within {WORK_S:.0f} s")
    except OSError as e:
        return Outcome(False, False, f"{verb} could not be started: {e}")
    try:
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
    except (ValueError, AssertionError):
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        return Outcome(False, False, f"{verb} ended with {ended}: {said}")
    if done.returncode == EXIT_OK:
        return Outcome(True, True, answer=answer)
    return Outcome(
        False,
        done.returncode == EXIT_USAGE,
        str(answer.get("error", "")),
        tuple(answer.get("problems", ())),
    )
