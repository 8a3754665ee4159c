"""The stdout output: JSON lines at the reader's pace."""

from __future__ import annotations

import os
import time

import psutil

from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.procs import service
from tests.kit.publisher_rig import run_folder, stdout_config


def test_lines_and_a_reader_that_pauses() -> None:
    """A full pipe stops the rows of this output, not the process."""
    read_fd, write_fd = os.pipe()
    with (
        run_folder() as run,
        DispatchPeer(run, "console") as peer,
        service(stdout_config(run), stdout=write_fd) as publisher,
    ):
        os.close(write_fd)
        peer.add(3_000)
        until(lambda: peer.settled > 50, 5, publisher.stderr)
        until(lambda: peer.most_unreceipted == 1_000, 5, publisher.stderr)
        stopped = peer.settled
        assert stopped < 1_000, "settled although nobody has read"
        assert psutil.Process(publisher.pid).cpu_percent(0.3) < 20, "spins on the full pipe"
        data = b""
        while data.count(b"\n") < 3_000:
            data += os.read(read_fd, 65_536)
        peer.wait_done(10)
        check(peer, data.splitlines(), 0, 0)
        assert publisher.terminate() == 0
    os.close(read_fd)


def test_the_reader_goes_away() -> None:
    read_fd, write_fd = os.pipe()
    with (
        run_folder() as run,
        DispatchPeer(run, "console") as peer,
        service(stdout_config(run), stdout=write_fd) as publisher,
    ):
        os.close(write_fd)
        os.close(read_fd)
        for _ in range(100):
            # One delivery each: a timer of its own for every one would try 100 times a second.
            peer.add(1)
            time.sleep(0.01)
        until(lambda: publisher.said("nobody reads standard output"), 5, publisher.stderr)
        assert peer.settled == 0
        used = psutil.Process(publisher.pid)
        before = used.io_counters().write_count
        time.sleep(2.0)
        # The frames of every second write to ZeroMQ's eventfds.
        assert used.io_counters().write_count - before < 60, "more than one timer tries again"
        assert publisher.terminate() == 0
