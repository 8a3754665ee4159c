"""kill -9 at every step: the box goes on, and never stays half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from services.fleet.core.journal import Attempt, Journal, Target
from services.fleet.files import Folder, Texts
from tests.kit.common import ROOT, until
from tests.kit.fleet_rig import FleetBox, nobody_there


def kill_at(box: FleetBox, step: str, *, everything: bool) -> None:
    """The fleet process alone, or all of the box at once, when the journal says so."""
    until(lambda: box.journal()["step"] == step, 60, box.why)
    if not everything:
        pid, _ = box.site.kill("fleet")
        box.site.wait_back("fleet", pid)
        return
    victims = [p for p in box.site.descendants() if p.pid != os.getpid()]
    for process in sorted(victims, key=lambda p: "supervise" not in " ".join(p.cmdline())):
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, 10)
    assert box.site.process is not None
    box.site.process.wait(10)
    box.site.start()
    box.site.wait_running()


@pytest.mark.parametrize("everything", [False, True], ids=["fleet", "box"])
@pytest.mark.parametrize("step", ["applying", "watching"])
def test_a_good_version_comes_through(step: str, everything: bool) -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        box.centre.want(5, box.text(plcs=[box.plc(1, scan="170ms"), box.plc(2)]))
        kill_at(box, step, everything=everything)
        box.wait_report("applied", 5, 90)
        assert box.journal()["step"] == "idle"
        assert "170ms" in box.site.file.read_text()
        assert set(box.site.table()) >= {"reader-prensa-01", "reader-prensa-02", "fleet"}


@pytest.mark.parametrize("everything", [False, True], ids=["fleet", "box"])
@pytest.mark.parametrize("step", ["applying", "watching", "reverting"])
def test_a_bad_version_is_taken_back(step: str, everything: bool) -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        before = box.site.file.read_text()
        until(lambda: "plc:prensa-01" in box.site.log("fleet") or
              box.centre.reports[-1]["health"]["plcs"].get("prensa-01") == "online",
              30, box.why)  # fmt: skip
        box.centre.want(5, box.text(plcs=[box.plc(1, port=nobody_there())]))
        kill_at(box, step, everything=everything)
        box.wait_report("rolled_back", 5, 90)
        assert box.site.file.read_text() == before
        port = box.plc_ports[0]
        until(lambda: box.rendered("reader-prensa-01")["plc"]["port"] == port, 10, box.why)
        until(lambda: box.site.table()["reader-prensa-01"]["statename"] == "RUNNING", 10, box.why)


PLACES = ["fleet.place", "fleet.placed", "fleet.applied", "fleet.replaced", "fleet.restored"]


@pytest.mark.parametrize("place", PLACES)
def test_each_piece_of_work_may_be_killed_and_repeated(place: str) -> None:
    """The work alone, of a box whose fleet process stands still meanwhile."""
    with FleetBox(claim=False) as box:
        os.kill(box.site.pid("fleet"), signal.SIGSTOP)
        folder = Folder(box.site.state, box.site.file)
        before = box.site.file.read_text()
        layout = (box.site.folder / "layouts/db500.yaml").read_text()
        texts = Texts(
            box.text(plcs=[box.plc(1), box.plc(2)]), {"layouts/db500.yaml": layout + "#\n"}
        )
        folder.keep(texts)
        target = Target(1, texts.sha256)
        for verb in ("check", "prepare"):
            assert work(box, verb, texts.sha256) == 0
        folder.write_journal(Journal().begin(Attempt(target)))
        applies = place in ("fleet.place", "fleet.placed", "fleet.applied")
        if applies:
            assert work(box, "apply", texts.sha256, place) == -signal.SIGKILL
        assert work(box, "apply", texts.sha256) == 0
        assert box.site.file.read_text() == texts.yaml
        until(lambda: "reader-prensa-02" in box.site.table(), 10, box.why)
        assert not (box.site.runtime / "owed.json").exists()
        assert work(box, "restore", texts.sha256) == 1, "not what the journal says"
        folder.write_journal(folder.journal().revert("harm"))
        if not applies:
            assert work(box, "restore", texts.sha256, place) == -signal.SIGKILL
        assert work(box, "restore", texts.sha256) == 0
        assert box.site.file.read_text() == before
        assert (box.site.folder / "layouts/db500.yaml").read_text() == layout
        assert "reader-prensa-02" not in box.site.table()
        assert (box.site.state / "applied/config.yaml").read_text() == before


def work(box: FleetBox, verb: str, sha256: str, failpoint: str = "") -> int:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "services.fleet.work", verb, str(box.site.state),
         str(box.site.file), sha256],
        cwd=ROOT, check=False, env={**os.environ, "PLC_EDGE_FAILPOINT": failpoint}, timeout=60,
    )  # fmt: skip
    return done.returncode


def test_a_killed_apply_still_owes_the_restart_of_what_supervisord_does_not_see(
    tmp_path: Path,
) -> None:
    """metrics stands in supervisord.conf: once its JSON is written nothing else tells that it runs
    with an older one.
    """
    with FleetBox(claim=False) as box:
        pid = box.site.pid("metrics")
        config = {**box.site.config, "clock_sync": "required"}
        box.site.file.write_text(yaml.safe_dump(config))
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from services.runtime import applying, loader\n"
            "applying.update = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "applying.apply(loader.load(Path(sys.argv[1])))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(box.site.file)], cwd=ROOT, check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        assert box.rendered("metrics")["clock_sync"] == "required"
        assert box.site.pid("metrics") == pid
        assert "restarted metrics" in box.site.run("apply").stdout
        assert box.site.pid("metrics") != pid
