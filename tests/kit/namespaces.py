"""Machines of their own on one machine: network namespaces on a bridge, whose cables can be cut.

Needs root and iproute2. Addresses are of 198.18.0.0/15, which is for such tests (RFC 2544).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def possible() -> bool:
    """Whether this machine lets us."""
    if IP is None or os.geteuid():
        return False
    name = f"pe{os.getpid()}t"
    made = subprocess.run([IP, "netns", "add", name], capture_output=True, check=False)
    subprocess.run([IP, "netns", "delete", name], capture_output=True, check=False)
    return made.returncode == 0


class Net:
    """``count`` namespaces; this process sees all of them through the bridge."""

    def __init__(self, count: int = 3) -> None:
        self._bridge = f"pe{os.getpid()}b"
        third = os.getpid() % 250 + 1
        self._names = {f"198.18.{third}.{11 + n}": f"pe{os.getpid()}n{n}" for n in range(count)}
        self._gateway = f"198.18.{third}.1"

    @property
    def hosts(self) -> list[str]:
        """The address of each."""
        return list(self._names)

    @property
    def launchers(self) -> list[list[str]]:
        """Words before a command that is to run in each."""
        return [[str(IP), "netns", "exec", name] for name in self._names.values()]

    def cut(self, host: str) -> None:
        """Pulls its cable: nobody reaches it."""
        self._ip("link", "set", f"{self._names[host]}b", "down")

    def mend(self, host: str) -> None:
        """Puts it in again."""
        self._ip("link", "set", f"{self._names[host]}b", "up")

    def part(self, host: str) -> None:
        """The others do not reach it, nor it them; its clients do."""
        for other in self._others(host):
            self._ip("-n", self._names[host], "route", "add", "blackhole", f"{other}/32")

    def join(self, host: str) -> None:
        """Ends it."""
        for other in self._others(host):
            self._ip("-n", self._names[host], "route", "delete", "blackhole", f"{other}/32")

    def _others(self, host: str) -> Sequence[str]:
        return [other for other in self._names if other != host]

    def _ip(self, *words: str, check: bool = True) -> None:
        done = subprocess.run([str(IP), *words], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

    def __enter__(self) -> Self:
        try:
            self._ip("link", "add", self._bridge, "type", "bridge")
            self._ip("addr", "add", f"{self._gateway}/24", "dev", self._bridge)
            self._ip("link", "set", self._bridge, "up")
            for host, name in self._names.items():
                self._ip("netns", "add", name)
                self._ip("link", "add", f"{name}b", "type", "veth", "peer", f"{name}i")
                self._ip("link", "set", f"{name}b", "master", self._bridge, "up")
                self._ip("link", "set", f"{name}i", "netns", name)
                self._ip("-n", name, "addr", "add", f"{host}/24", "dev", f"{name}i")
                for interface in (f"{name}i", "lo"):
                    self._ip("-n", name, "link", "set", interface, "up")
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
        for name in self._names.values():
            self._ip("netns", "delete", name, check=False)
            self._ip("link", "delete", f"{name}b", check=False)
        self._ip("link", "delete", self._bridge, check=False)
