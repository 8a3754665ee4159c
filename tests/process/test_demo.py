"""``plc-edge demo``: messages soon, and nothing left behind by Ctrl-C, SIGTERM or kill -9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.kit.common import ROOT, until
from tests.kit.site import alarms

DEMO = [sys.executable, "-P", "-m", "services.cli.main", "demo"]


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"no {pattern}:\n{seen}")


def folder_of(seen: str) -> Path:
    match = re.search(r"(/tmp/plc-edge-\w+)/", seen)
    assert match, seen
    return Path(match[1])


def of_demo(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if any(str(folder) in w for w in words):
            found.append(process)
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(ending: signal.Signals) -> None:
    begin_s = time.monotonic()
    process = start()
    try:
        seen = read_until(process, r"^plc/acme/\S+ \{")
        print(f"first message shown after {time.monotonic() - begin_s:.1f} s")
        folder = folder_of(seen)
        assert "mosquitto_sub" in seen
        assert re.search(r"http://127\.0\.0\.1:\d+/", seen)
        assert len(of_demo(folder)) > 6
        assert alarms((folder / "state" / "log" / "supervisord.log").read_text()) == []
        process.send_signal(ending)
        process.wait(30)
        until(lambda: not of_demo(folder), 15, "every process gone")
        # A killed demo cannot remove its folder; nothing runs in it any more.
        assert ending == signal.SIGKILL or not folder.exists()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.timeout(120)
def test_it_ends_by_itself() -> None:
    done = subprocess.run(
        [*DEMO, "--plcs", "3", "--seconds", "12"], capture_output=True, text=True, check=False,
        timeout=60, cwd=ROOT, env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^plc/(acme|beta)/(prensa|forno)-0[123] \{", done.stdout, re.MULTILINE)
    assert re.search(r"\d+ messages, \d+ of them shown", done.stdout)


def test_a_layout_that_is_not_there() -> None:
    done = subprocess.run(
        [*DEMO, "--host", "127.0.0.1", "--layout", "/nowhere.yaml"], capture_output=True,
        text=True, check=False, timeout=30, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not exist" in done.stderr
