"""``plc-edge demo``: messages soon, and nothing left behind by Ctrl-C, SIGTERM or kill -9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from tests.kit.common import ROOT, until
from tests.kit.demo import folder_of, of_demo, read_until, start
from tests.kit.site import PLC_EDGE, alarms

DEMO = [*PLC_EDGE, "demo"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(ending: signal.Signals) -> None:
    begin_s = time.monotonic()
    process = start("demo")
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
