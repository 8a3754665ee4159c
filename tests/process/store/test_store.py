"""The real store process: acknowledged rows outlive kill -9, an I/O error and its restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus import topology
from bus.frames import Ack, Deliver, Hello, Ready, Receipt, Reply, Request, Sample
from bus.sockets import Bus
from tests.kit.common import ROOT, until
from tests.kit.procs import Service, service
from tests.kit.tracing import needs_strace, tampered

EPOCH = 1_764_000_000_000


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    (path / "r").mkdir()
    (path / "s").mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def rendered(folder: Path) -> dict[str, Any]:
    return {
        "process": "store_forward",
        "folder": "store_forward",
        "item": "",
        "site": "planta-sp",
        "locatario": "acme",
        "runtime": str(folder / "r"),
        "state": str(folder / "s"),
        "store": {
            "max_size_bytes": 2**30,
            "max_age_s": 1e9,
            "min_free_bytes": 0,
            "durability": "full",
            "commit_ms": 5,
            "replay": {"mode": "strict", "live_weight": 4, "max_rate": None},
        },
        "outputs": [{"name": "central", "locatarios": None, "from": "oldest", "strict": False}],
        "plcs": [{"id": "p1", "locatario": "acme"}],
    }


class Peer:
    """A reader and an output in one."""

    def __init__(self, folder: Path) -> None:
        self.bus = Bus(folder / "r")
        self.keep, self.acks = self.bus.connect("keep"), self.bus.connect("acks")
        self.acks.subscribe(topology.topic("ack", "p1"))
        self.receipts = self.bus.connect("receipts")
        self.dispatch = self.bus.connect("dispatch", "central")
        self.where = (-1, -1)
        self.got: list[int] = []
        self.session = 1

    def hello(self) -> tuple[int, int]:
        """Where the store says that it stands."""

        def answered() -> bool:
            self.keep.send(Hello("p1", "acme", 7))
            time.sleep(0.05)
            while (ack := self.acks.receive()) is not None:
                assert isinstance(ack, Ack)
                if ack.why == "hello":
                    self.where = (ack.epoch, ack.seq)
                    return True
            return False

        until(answered, 10, "no answer to Hello")
        return self.where

    def status(self) -> Any:
        """What the store says of itself."""
        port = self.bus.connect("control")
        until(lambda: port.send(Request("status")), 5, "no control socket")
        assert port.socket.poll(5_000), "no answer"
        reply = port.receive()
        self.bus.release(port)
        assert isinstance(reply, Reply)
        assert not reply.error, reply.error
        return reply.result

    def send(self, first: int, last: int) -> None:
        """Sends rows and waits until they are acknowledged."""
        sent = first - 1
        deadline_s = time.monotonic() + 20
        while True:
            while sent < last:
                body = b'{"n":%d}' % (sent + 1)
                row = Sample("p1", "acme", EPOCH, sent + 1, EPOCH + sent, body)
                if not self.keep.send(row):
                    break
                sent += 1
            self.acks.socket.poll(50)
            while (ack := self.acks.receive()) is not None:
                assert isinstance(ack, Ack)
                self.where = (ack.epoch, ack.seq)
                if ack.why == "nak":
                    sent = ack.seq
            if self.where == (EPOCH, last):
                return
            assert time.monotonic() < deadline_s, f"acknowledged only {self.where} of {last}"

    def take(self, count: int, settle: bool = True) -> None:
        """As the output: takes rows until it has so many in all."""
        deadline_s, ready_s = time.monotonic() + 20, 0.0
        while len(self.got) < count:
            assert time.monotonic() < deadline_s, f"{len(self.got)} of {count} delivered"
            if time.monotonic() > ready_s:
                ready_s = time.monotonic() + 0.5
                self.receipts.send(Ready("central", self.session, 500))
            self.dispatch.socket.poll(20)
            while (frame := self.dispatch.receive()) is not None:
                if isinstance(frame, Deliver) and frame.session == self.session:
                    self.got += [json.loads(row[-1])["n"] for row in frame.rows]
                    if settle:
                        last = frame.rows[-1][0]
                        self.receipts.send(Receipt("central", self.session, "live", last))


@pytest.fixture
def peer(folder: Path) -> Iterator[Peer]:
    it = Peer(folder)
    yield it
    it.bus.close()


def test_acknowledged_rows_outlive_kill_9(folder: Path, peer: Peer) -> None:
    with service(rendered(folder)) as store:
        assert peer.hello() == (0, 0)
        peer.send(1, 3_000)
        store.kill()
    with service(rendered(folder)) as store:
        assert peer.hello() == (EPOCH, 3_000)
        peer.send(3_001, 3_100)
        peer.take(3_100)
        assert peer.got == list(range(1, 3_101))
        assert store.terminate() == 0


def test_a_crash_of_the_interpreter_is_in_the_log(folder: Path) -> None:
    """Whatever a library does: the line at which a process died can be read in its log."""
    with service(rendered(folder)) as store:
        store.process.send_signal(signal.SIGSEGV)
        assert store.process.wait(5) == -signal.SIGSEGV
        until(lambda: store.said("services/store_forward/__main__.py"), 5, store.stderr)
        store.wait_said("Fatal Python error: Segmentation fault")


def test_an_output_that_starts_anew_gets_what_it_did_not_settle(folder: Path, peer: Peer) -> None:
    with service(rendered(folder)) as store:
        peer.hello()
        peer.send(1, 300)
        peer.take(300, settle=False)
        peer.got, peer.session = [], 2
        peer.take(300)
        assert peer.got == list(range(1, 301))
        until(lambda: peer.status()["outputs"]["central"]["pending"] == 0, 5, "not settled")
        store.kill()
    with service(rendered(folder)):
        peer.hello()
        peer.send(301, 310)
        peer.got, peer.session = [], 3
        peer.take(10)
        assert peer.got == list(range(301, 311)), "a settled row came again after kill -9"


def test_a_jump_is_refused_until_the_missing_rows_come(folder: Path, peer: Peer) -> None:
    with service(rendered(folder)):
        peer.hello()
        peer.send(1, 10)
        peer.keep.send(Sample("p1", "acme", EPOCH, 20, 0, b'{"n":20}'))
        peer.send(11, 20)
        peer.take(20)
        assert peer.got == list(range(1, 21))


@needs_strace
def test_an_io_error_at_fsync_loses_nothing(folder: Path, peer: Peer) -> None:
    with service(rendered(folder)) as store:
        peer.hello()
        peer.send(1, 100)
        # From the third on every hundredth fdatasync fails, as a dying disk's would.
        with tampered(store.pid, "fdatasync", "error=EIO:when=3+100"):
            for first in range(101, 1_000, 100):
                _send_again(peer, first, first + 99)
        store.wait_said("quarantined")
        peer.take(1_000)
        assert peer.got == list(range(1, 1_001))


def _send_again(peer: Peer, first: int, last: int) -> None:
    """Like a reader: asks where the store stands and goes on from there."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            peer.send(max(first, peer.hello()[1] + 1), last)
            return
        except AssertionError:
            assert time.monotonic() < deadline_s


def _cli(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    file = folder / "config.yaml"
    file.write_text(
        f"site: planta-sp\nlocatario: acme\npaths: {{state: {folder}/s, runtime: {folder}/r}}\n"
        "plcs: [{id: p1, host: 127.0.0.1, groups: [{name: g1, scan: 1s, fields:"
        " [{name: a1, address: 'M10.3'}]}]}]\n"
        "outputs: [{name: central, type: stdout, from: oldest}]\n"
    )
    command = [sys.executable, "-m", "services.cli.main", "store", *args, "-c", str(file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=40)


def test_the_command_answers_the_same_while_it_runs_and_when_stopped(
    folder: Path, peer: Peer
) -> None:
    store = Service(rendered(folder))
    try:
        store.wait_ready()
        peer.hello()
        peer.send(1, 1_200)
        answers = [_look(folder)]
        assert store.terminate() == 0
        answers.append(_look(folder))
        assert answers[0] == answers[1]
        assert answers[0] == (1_200, [f'{{"n":{n}}}' for n in range(1, 1_201)])
        done = _cli(folder, "purge", "-o", "central", "--yes")
        assert done.returncode == 0, done.stderr
        assert _look(folder)[0] == 1, "the gap message of what was given up"
    finally:
        store.end()


def _look(folder: Path) -> tuple[int, list[str]]:
    status = _cli(folder, "status", "--json")
    assert status.returncode == 0, status.stderr
    checked = _cli(folder, "verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    exported = _cli(folder, "export", "-o", "central")
    assert exported.returncode == 0, exported.stderr
    pending = json.loads(status.stdout)["outputs"]["central"]["pending"]
    return pending, exported.stdout.splitlines()


def test_an_unknown_output_is_named_with_the_known_ones(folder: Path) -> None:
    (folder / "s" / "outbox").mkdir()
    done = _cli(folder, "export", "-o", "centrl")
    assert done.returncode == 1
    assert "configured: central" in done.stderr


def _bury(peer: Peer, count: int) -> None:
    """As the output: refuses the first ``count`` rows for ever, settles them."""
    deadline_s = time.monotonic() + 20
    while peer.status()["outputs"]["central"]["dead_letters"] < count:
        assert time.monotonic() < deadline_s, "no dead letters"
        peer.receipts.send(Ready("central", peer.session, 500))
        peer.dispatch.socket.poll(50)
        while (frame := peer.dispatch.receive()) is not None:
            if isinstance(frame, Deliver) and frame.session == peer.session:
                refused = [(row[0], "too large") for row in frame.rows[:count]]
                last = frame.rows[-1][0]
                peer.receipts.send(Receipt("central", peer.session, "live", last, refused))


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_dead_letters_are_exported_retried_and_purged(
    folder: Path, peer: Peer, running: bool
) -> None:
    store = Service(rendered(folder))
    try:
        store.wait_ready()
        peer.hello()
        peer.send(1, 3)
        _bury(peer, 3)
        if not running:
            assert store.terminate() == 0
        dead = _cli(folder, "export", "-o", "central", "--dead")
        assert dead.stdout.splitlines() == [f'{{"n":{n}}}' for n in (1, 2, 3)], dead.stderr
        assert json.loads(_cli(folder, "status", "--json").stdout)["dead"][0]["seq"] == 1
        again = _cli(folder, "retry", "-o", "central")
        assert again.stdout.strip() == "3 messages queued again", again.stderr
        if not running:
            store.end()
            store = Service(rendered(folder))
            store.wait_ready()
        peer.session = 2
        peer.got = []
        peer.take(3)
        assert peer.got == [1, 2, 3]
        assert peer.status()["outputs"]["central"]["dead_letters"] == 0
        peer.session = 3
        peer.send(4, 5)
        _bury(peer, 2)
        if not running:
            assert store.terminate() == 0
        gone = _cli(folder, "purge", "-o", "central", "--dead", "--yes")
        assert gone.stdout.strip() == "2 messages given up", gone.stderr
        status = json.loads(_cli(folder, "status", "--json").stdout)
        assert status["outputs"]["central"]["dead_letters"] == 0
    finally:
        store.end()


@needs_strace
def test_a_command_on_a_full_disk_says_so_and_ends_nothing(folder: Path, peer: Peer) -> None:
    with service(rendered(folder)) as store:
        peer.hello()
        peer.send(1, 2)
        _bury(peer, 2)
        peer.session = 2  # nobody takes what comes now
        peer.send(3, 3)
        for command in ("purge --dead --yes", "purge --yes", "retry"):
            verb, *rest = command.split()
            with tampered(store.pid, "pwrite64", "error=ENOSPC"):
                failed = _cli(folder, verb, "-o", "central", *rest)
            assert failed.returncode == 1, command
            assert "nothing was changed" in failed.stderr, command
            assert "full" in failed.stderr.lower(), command
            assert "Traceback" not in failed.stderr + store.stderr(), command
        done = _cli(folder, "purge", "-o", "central", "--dead", "--yes")
        assert done.stdout.strip() == "2 messages given up", done.stderr


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_verify_names_a_damaged_file(folder: Path, peer: Peer, running: bool) -> None:
    store = Service(rendered(folder))
    try:
        store.wait_ready()
        peer.hello()
        peer.send(1, 2_000)
        assert store.terminate() == 0
        (path,) = (folder / "s" / "outbox").glob("*.seg")
        if running:
            store.end()
            store = Service(rendered(folder))
            store.wait_ready()
        with path.open("r+b") as file:
            # A page in the middle, which nothing but reading every row looks at.
            file.seek(path.stat().st_size // 2 // 4096 * 4096 + 2_000)
            file.write(b"\xff" * 64)
        checked = _cli(folder, "verify")
        assert checked.returncode == 1, checked.stdout
        assert path.name in checked.stdout
    finally:
        store.end()
