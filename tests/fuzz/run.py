"""One spoiled input through the command, as a person would give it, and what must hold then."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import typer

from services.cli.main import app, guarded
from services.runtime import loader, render
from tests.fuzz.corpus import EXAMPLE, LAYOUTS, Seed, seeds, suffix
from tests.fuzz.mutate import MUTATIONS, Mutation

KINDS = ("config", "layout", "source")
# Of processor time: others work on the same machine.
LIMIT_S = 2.0
# A command that has not ended by then is stopped, where Python can stop it.
STOP_S = 20


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    kind: str
    mutation: str
    code: int
    took_s: float
    fault: str
    """What must not be; empty where all is well."""


class Fuzzer:
    """Spoils inputs and runs them in a folder of its own; numbered, so each can come again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.seeds = seeds()
        # What a page shows is a part of a file: the whole ones come as often as all of these.
        whole = [s for s in self.seeds if s.kind == "config" and ":" not in s.name]
        self.seeds += whole * (len(self.seeds) // len(whole) // 2)
        os.environ |= {"PLC_EDGE_MQTT_PASSWORD": "x", "PLC_EDGE_MQTT_PASSWORD_BETA": "x"}
        self.command = typer.main.get_command(app())
        shutil.copytree(LAYOUTS, folder / "layouts", dirs_exist_ok=True)

    def make(self, number: int) -> tuple[Seed, Mutation, bytes]:
        """Input number ``number``: the file it came from, how it was spoiled, its bytes."""
        random = Random(f"{self.seed}/{number}")
        kind = random.choice(KINDS)
        seed = random.choice([s for s in self.seeds if s.kind == kind])
        mutation = random.choice(MUTATIONS)
        others = [s.content for s in self.seeds if s.kind == kind or random.random() < 0.1]
        content = mutation(seed.content, random, others)
        if random.random() < 0.3:
            content = random.choice(MUTATIONS)(content, random, others)
        return seed, mutation, content

    def run(self, number: int) -> Outcome:
        """Runs input ``number``."""
        seed, mutation, content = self.make(number)
        arguments = self._place(seed, content)
        code, took_s, fault = self._invoke(arguments)
        if not fault and code == 0 and seed.kind != "source":
            # What `check` takes, `run` must be able to render.
            try:
                render.render(loader.load(self.folder / "config.yaml"))
            except Exception:
                fault = traceback.format_exc()
        return Outcome(seed.kind, mutation.__name__, code, took_s, fault)

    def _place(self, seed: Seed, content: bytes) -> list[str]:
        config = self.folder / "config.yaml"
        if seed.kind == "source":
            file = self.folder / f"source{suffix(seed)}"
            file.write_bytes(content)
            return ["layout", "import", str(file)]
        layouts = sorted(LAYOUTS.glob("*.yaml"))
        for layout in layouts:
            target = self.folder / "layouts" / layout.name
            target.write_bytes(content if seed.kind == "layout" else layout.read_bytes())
        config.write_bytes(content if seed.kind == "config" else EXAMPLE.read_bytes())
        return ["check", "-c", str(config)]

    def _invoke(self, arguments: list[str]) -> tuple[int, float, str]:
        """(exit code, seconds, fault)."""
        began_s = time.process_time()
        code, fault = 1, "ended without an exit code"
        with _streams() as errors:
            try:
                with _stopped_after(STOP_S):
                    guarded(lambda: self.command.main(arguments, prog_name="plc-edge"))
            except SystemExit as e:
                code, fault = (e.code if isinstance(e.code, int) else int(bool(e.code))), ""
            except BaseException:
                fault = traceback.format_exc()
            took_s = time.process_time() - began_s
            said = errors.getvalue().decode()
        if not fault and code not in (0, 2):
            fault = f"exit {code}\n{said}"
        elif not fault and code == 2 and not said.strip():
            fault = "exit 2 without a word"
        elif not fault and "Traceback" in said:
            fault = said
        elif not fault and took_s > LIMIT_S:
            fault = f"took {took_s:.1f} s"
        return code, took_s, fault


@contextmanager
def _streams() -> Iterator[io.BytesIO]:
    """stdout and stderr as in a UTF-8 terminal; gives what is written to stderr."""
    errors = io.BytesIO()
    kept = sys.stdout, sys.stderr
    sys.stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", write_through=True)
    try:
        yield errors
    finally:
        sys.stdout, sys.stderr = kept


class _Stopped(Exception):
    """It took too long."""


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
