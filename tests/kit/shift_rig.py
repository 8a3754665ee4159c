"""A box with shifts, a press and a history: a real store_forward and a real historian, fed with
what a reader would have said in a shift that has just ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from services.runtime import loader, render
from services.runtime.clock import now_ms
from tests.kit.common import ROOT
from tests.kit.procs import Service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source

MIN = 60_000
SITE = """\
site: planta-sp
locatario: acme
paths: {{state: {run}, runtime: {run}}}
plcs:
  - id: prensa-01
    host: 127.0.0.1
    groups:
      - name: db500
        db: 500
        max_silence: 1m
        fields:
          - {{name: rodando, type: BOOL, offset: 0.0}}
          - {{name: boas, type: UINT, offset: 2}}
          - {{name: ruins, type: UINT, offset: 4}}
          - {{name: codigo, type: INT, offset: 6}}
store: {{min_free: 0MiB}}
metrics: {{port: {port}}}
history: {{min_free: 0MiB}}
shifts:
  timezone: UTC
  week:
    - {{name: teste, from: "{begin}", to: "{end}"}}
{email}
oee:
  - name: prensa
    plc: prensa-01
    group: db500
    running: rodando
    good: boas
    bad: ruins
    ideal_cycle: 6s
    min_stop: 30s
    reason: codigo
    reasons: {{3: "falta [b] de material", 7: "setup <M12>"}}
    planned: [7]
"""
# What the shift was, in minutes from its beginning: (minute, running, good, bad, code). A message a
# minute, what is said holds for 66 s; from minute 200 to 220 nothing is said. 480 min: 20 unknown,
# 30 planned, 43 unplanned, 387 running; good: 65500 wraps to 64 (100, as many as it can
# make in that minute at ten times its pace), and 600 more.
STORY = [
    (0, True, 65_500, 0, 0),
    (60, True, 64, 10, 0),
    (90, False, 64, 10, 7),
    (120, True, 64, 10, 0),
    (300, False, 64, 10, 0),
    (310, False, 64, 10, 3),
    (343, True, 64, 10, 0),
    (400, True, 664, 20, 0),
]
SILENT = range(200, 220)
# Of the story: what is seen at minute 0 came since the message before the shift.
RUNNING_MIN, UNPLANNED_MIN, PLANNED_MIN = 387, 43, 30


class ShiftWorld:
    """The run directory, a source, the store; shift ``teste`` ended a few minutes ago."""

    def __init__(self, run: Path, email: str = "", port: int = 9108) -> None:
        self.run = run
        self.file = run / "config.yaml"
        end = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=3)
        self.begin = end - timedelta(hours=8)
        self.begin_ms, self.end_ms = (round(t.timestamp() * 1_000) for t in (self.begin, end))
        self.shift = f"{self.begin.date().isoformat()}/teste"
        begin_text, end_text = (t.strftime("%H:%M") for t in (self.begin, end))
        self.file.write_text(
            SITE.format(run=run, begin=begin_text, end=end_text, email=email, port=port)
        )
        self.site = loader.load(self.file, {})
        self.rendered = render.render(self.site)
        render.write_clear_secrets(self.site)
        (run / "conf").mkdir()
        self.source = Source(run, "prensa-01")
        self.store = Service(self.rendered["store_forward"])

    @contextmanager
    def historian(self) -> Iterator[Service]:
        """The process; killed at the end."""
        running = Service(self.rendered["historian"])
        try:
            running.wait_ready()
            yield running
        finally:
            running.end()

    def tell(self) -> None:
        """The story, with a minute before it and one after."""
        at = -1
        for minute in range(-1, 482):
            while at + 1 < len(STORY) and STORY[at + 1][0] <= minute:
                at += 1
            if minute in SILENT:
                continue
            _, running, good, bad, code = STORY[max(at, 0)]
            self.say(minute, rodando=running, boas=good, ruins=bad, codigo=code)
        self.source.drain()

    def say(self, minute: int, **values: Any) -> None:
        """One message."""
        ts = self.begin_ms + minute * MIN
        message = {"v": 1, "site": "planta-sp", "locatario_id": "acme", "plc_id": "prensa-01",
                   "ts": ts, "group": "db500", "db": 500, "measurement": "s7_db1",
                   "quality": "good", "values": values}  # fmt: skip
        self.source.publish(lambda e, s: orjson.dumps({**message, "epoch": e, "seq": s}), now_ms())
        self.source.turn()

    def plc_edge(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command."""
        command = [sys.executable, "-P", "-m", "services.cli.main", *args]
        return subprocess.run(
            [*command, "--config", str(self.file)],
            capture_output=True, text=True, timeout=60, cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        )  # fmt: skip

    def oee(self, *args: str) -> dict[str, Any]:
        """The press's figures, from the command."""
        done = self.plc_edge("oee", *args, "--json")
        assert done.returncode == 0, done.stderr
        machine: dict[str, Any] = orjson.loads(done.stdout)["machines"][0]
        return machine

    def close(self) -> None:
        """Ends what runs."""
        self.store.end()
        self.source.close()


@contextmanager
def shift_world(email: str = "", port: int = 9108) -> Iterator[ShiftWorld]:
    with run_folder() as run:
        it = ShiftWorld(run, email, port)
        try:
            it.store.wait_ready()
            yield it
        finally:
            it.close()
