"""Any process may die at any moment: PLCs are polled on time, nothing is lost, it is back soon."""

from __future__ import annotations

import statistics
import time
from functools import partial
from itertools import pairwise

import psutil
import pytest

from tests.kit.box import Box, plc
from tests.kit.common import free_ports, until

pytestmark = pytest.mark.timing

SCAN_MS = 100
SCAN = f"{SCAN_MS}ms"


def intervals_ms(reads_ns: list[int]) -> list[float]:
    return [(b - a) / 1e6 for a, b in pairwise(reads_ns)]


def assert_no_hole(messages: list[dict[str, object]]) -> None:
    """One epoch, every seq from the first to the last, in order at first delivery."""
    assert len({m["epoch"] for m in messages}) == 1
    seqs = list(dict.fromkeys(m["seq"] for m in messages))
    assert seqs == list(range(1, len(seqs) + 1))


def test_kill_each_process_in_turn() -> None:
    names = ["store_forward", "publisher-central", "mirror-copia", "metrics"]
    with_raw = Box(2, SCAN)
    first, second = with_raw.config["plcs"]
    first["groups"][0]["raw"] = True
    with_raw.config["mirrors"] = [
        {"name": "copia", "enabled": True, "source": {"plc": first["id"], "group": "db500"},
         "target": {"host": "127.0.0.1", "port": second["port"], "db": 600}},
    ]  # fmt: skip
    with with_raw as box:
        box.wait_for_messages("prensa-01", 10)
        begin = {p: len(box.simulator.reads_ns(p)) for p in ("prensa-01", "prensa-02")}
        for name in names:
            pid, killed_s = box.site.kill(name)
            box.site.wait_back(name, pid)
            back_s = time.monotonic() - killed_s
            print(f"{name} back after {back_s:.2f} s")
            assert back_s <= 3
            box.wait_for_messages("prensa-01", 5)
        for name, since in begin.items():
            gaps = intervals_ms(box.simulator.reads_ns(name)[since:])
            print(f"{name}: {len(gaps)} scans, longest interval {max(gaps):.1f} ms")
            # A missed scan would show as an interval of two.
            assert max(gaps) < 2 * SCAN_MS - 10
            newest = partial(lambda n: box.subscriber.data(n)[-1]["seq"] > 20, name)
            until(newest, 10, "messages")
            assert_no_hole(box.subscriber.data(name))


def test_kill_a_reader_and_its_sequence_goes_on() -> None:
    with Box(2, SCAN) as box:
        box.wait_for_messages("prensa-01", 10)
        for _ in range(3):
            pid, killed_s = box.site.kill("reader-prensa-01")
            box.site.wait_back("reader-prensa-01", pid)
            assert time.monotonic() - killed_s <= 3
            box.wait_for_messages("prensa-01", 5)
        assert_no_hole(box.subscriber.data("prensa-01"))
        assert_no_hole(box.subscriber.data("prensa-02"))
        gaps = intervals_ms(box.simulator.reads_ns("prensa-02"))
        assert max(gaps[2:]) < 2 * SCAN_MS - 10


def test_kill_supervisord_leaves_nobody_and_run_goes_on() -> None:
    with Box(1) as box:
        site = box.site
        box.wait_for_messages("prensa-01", 10)
        pid = site.rpc.getPID()
        children = psutil.Process(pid).children(recursive=True)
        psutil.Process(pid).kill()
        assert site.process is not None
        # The parent says that supervisord is gone: the service manager starts the site again.
        assert site.process.wait(10) == 1
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        assert not [p for p in site.descendants() if "services." in " ".join(p.cmdline())]
        site.start()
        site.wait_running()
        box.wait_for_messages("prensa-01", 10)
        assert_no_hole(box.subscriber.data("prensa-01"))


def test_a_second_run_is_refused() -> None:
    with Box(1) as box:
        done = box.site.run("run")
        assert done.returncode == 1
        assert "already runs" in done.stderr
        assert box.site.table()["reader-prensa-01"]["statename"] == "RUNNING"


def test_a_stopped_plc_does_not_touch_its_neighbour() -> None:
    with Box(2, SCAN) as box:
        box.wait_for_messages("prensa-02", 100)
        since = len(box.simulator.reads_ns("prensa-02"))
        box.simulator.tell("down prensa-01")
        box.wait_for_messages("prensa-02", 100)
        reads = box.simulator.reads_ns("prensa-02")
        before, after = intervals_ms(reads[2:since]), intervals_ms(reads[since:])
        for name, gaps in (("both up", before), ("one down", after)):
            late = statistics.quantiles([abs(g - SCAN_MS) for g in gaps], n=100)
            print(f"{name}: |interval - 100 ms| p50 {late[49]:.2f} p90 {late[89]:.2f} ms")
        assert max(after) < 2 * SCAN_MS - 10
        last = box.subscriber.data("prensa-01")[-1]
        assert (last["quality"], last["values"], last["bad"]) == ("bad", {}, {"*": "plc_offline"})
        box.simulator.tell("up prensa-01")
        box.wait_for_messages("prensa-01", 5)
        assert box.subscriber.data("prensa-01")[-1]["quality"] == "good"
        assert_no_hole(box.subscriber.data("prensa-01"))


def test_apply_starts_one_process_and_restarts_none() -> None:
    with Box(3) as box:
        site, config = box.site, box.config
        third = config["plcs"].pop()
        site.configure(config)
        assert "stopped reader-prensa-03" in site.run("apply").stdout
        before = {n: r["pid"] for n, r in site.table().items()}
        site.configure({**config, "plcs": [*config["plcs"], third]})
        done = site.run("apply")
        assert (done.returncode, done.stdout.split()) == (0, ["started", "reader-prensa-03"])
        count = len(box.subscriber.data("prensa-03"))
        until(lambda: len(box.subscriber.data("prensa-03")) > count, 10, "the third PLC")
        after = {n: r["pid"] for n, r in site.table().items()}
        assert after.keys() - before.keys() == {"reader-prensa-03"}
        assert {n: after[n] for n in before} == before


def test_a_bad_edit_is_refused_whole_and_a_restart_runs_what_was_applied() -> None:
    with Box(1) as box:
        site = box.site
        before = {n: r["pid"] for n, r in site.table().items()}
        (port,) = free_ports(1)
        bad = {**box.config, "plcs": [*box.config["plcs"], plc("prensa-01", port)]}
        site.configure(bad)
        done = site.run("apply")
        assert done.returncode == 2
        assert "stands 2 times" in done.stderr
        assert {n: r["pid"] for n, r in site.table().items()} == before
        assert site.stop() == 0
        site.start()
        site.wait_running()
        box.wait_for_messages("prensa-01", 3)
        assert "DEGRADED" in (site.folder / "run.log").read_text()
