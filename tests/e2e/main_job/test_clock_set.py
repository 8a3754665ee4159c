"""The PC's clock is set back an hour, and right again, while everything runs."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.judge import Judge

SCAN_MS = 100
# Imported by every Python that starts (the `site` module). CLOCK_REALTIME knows no namespace, and
# Debian 12's libfaketime breaks time.sleep (EINVAL from clock_nanosleep).
SITECUSTOMIZE = """\
import time
real = time.time_ns
def time_ns():
    with open({file!r}) as f:
        return real() + int(f.read()) * 10**9
time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9
"""


class Clock:
    """The wall clock of the processes that ``launcher`` starts."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(file=str(self._file)))
        self.launcher = ("env", f"PYTHONPATH={folder}")

    def set(self, off_s: int) -> None:
        """So far off the true time, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(off_s))
        new.rename(self._file)


def shows(box: Box, plc: str, off_s: int) -> bool:
    """Whether the newest message has been stamped by the clock as it is now."""
    off_ms = box.subscriber.data(plc)[-1]["ts"] - time.time() * 1_000
    return bool(abs(off_ms - off_s * 1_000) < 2_000)


@pytest.mark.timing
def test_set_back_an_hour_and_right_again(tmp_path: Path) -> None:
    """Scans go on in step, every number is given once and in order, whoever is killed meanwhile; a
    sequence that must begin anew (its ring is lost) has a later epoch though the clock is earlier.
    """
    clock = Clock(tmp_path)
    with Box(2, f"{SCAN_MS}ms", launcher=clock.launcher) as box:
        box.wait_for_messages("prensa-01", 10)
        reads = {p: len(box.simulator.reads_ns(p)) for p in ("prensa-01", "prensa-02")}
        pids = {name: row["pid"] for name, row in box.site.table().items()}
        for off_s in (-3_600, 0):
            clock.set(off_s)
            for plc in reads:
                until(partial(shows, box, plc, off_s), 10, box.site.logs)
                box.wait_for_messages(plc, 20)
        assert {name: row["pid"] for name, row in box.site.table().items()} == pids
        for plc, since in reads.items():
            gaps = [(b - a) / 1e6 for a, b in pairwise(box.simulator.reads_ns(plc)[since:])]
            print(f"{plc}: {len(gaps)} scans, longest interval {max(gaps):.0f} ms")
            assert max(gaps) < 2 * SCAN_MS - 10
        clock.set(-3_600)
        until(partial(shows, box, "prensa-01", -3_600), 10, box.site.logs)
        for name in ("store_forward", "reader-prensa-01", "publisher-central"):
            pid, _ = box.site.kill(name)
            box.site.wait_back(name, pid)
            for plc in reads:
                box.wait_for_messages(plc, 10)
        done = box.site.run("status")
        assert done.returncode == 0, done.stdout
        # prensa-02 loses its ring as well.
        before = box.subscriber.data("prensa-02")[-1]["epoch"]
        box.site.rpc.stopProcess("reader-prensa-02")
        for ring in box.site.runtime.rglob("*prensa-02*.ring"):
            ring.unlink()
        box.site.rpc.startProcess("reader-prensa-02")
        box.wait_for_messages("prensa-02", 10)
        after = box.subscriber.data("prensa-02")[-1]["epoch"]
        assert after > before
        judge = Judge()
        for topic, payload, retained in list(box.subscriber.received):
            if not retained:
                judge.take(topic, payload)
        assert judge.delivered > 100
        assert (judge.lost, judge.disordered, judge.changed) == ([], [], 0)
        assert judge.epochs == 3
