"""A box that belongs to a scripted centre: simulated PLCs, real Mosquitto, supervisord, fleet."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.kit.box import LAYOUT, plc
from tests.kit.broker import Broker
from tests.kit.common import ROOT, free_port, free_ports, until
from tests.kit.scripted_centre import CODE, ScriptedCentre
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE, Site

WATCH = "6s"


class FleetBox:
    """One PLC ``prensa-01`` (two are simulated), one MQTT output ``central``; claimed by file.

    ``centre``: (URL, CA) of another control plane than the scripted one.
    """

    def __init__(
        self,
        *,
        claim: bool = True,
        watch: str = WATCH,
        plcs: int = 1,
        centre: tuple[str, Path] | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="pef", dir="/tmp"))
        self.plc_ports = free_ports(2)
        self.metrics_port = free_port()
        self._claim, self._watch, self._count = claim, watch, plcs
        self._other = centre

    def plc(
        self,
        number: int = 1,
        scan: str = "100ms",
        port: int | None = None,
        layout: str = "layouts/db500.yaml",
    ) -> dict[str, Any]:
        """A PLC of the configuration."""
        name = f"prensa-{number:02d}"
        return plc(name, port or self.plc_ports[number - 1], scan, layout=layout)

    def text(self, **changes: Any) -> str:
        """A config.yaml for this box, as the centre would send it."""
        return yaml.safe_dump({**self.site.config, **changes}, allow_unicode=True)

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.callback(shutil.rmtree, self.folder, True)
            self.centre = stack.enter_context(ScriptedCentre(self.folder))
            self.broker = stack.enter_context(Broker())
            simulated = {
                "site": "e2e", "locatario": "acme",
                "plcs": [plc(f"prensa-{n + 1:02d}", p) for n, p in enumerate(self.plc_ports)],
            }  # fmt: skip
            self.simulator = stack.enter_context(Simulator(simulated))
            url, ca = self._other or (self.centre.url, self.centre.ca.file)
            fleet = {"url": url, "ca": str(ca), "watch": self._watch}
            if self._claim:
                (self.folder / "claim.txt").write_text(CODE + "\n")
                fleet["claim_file"] = str(self.folder / "claim.txt")
            self.site = Site({})
            layouts = self.site.folder / "layouts"
            layouts.mkdir()
            shutil.copy(LAYOUT, layouts / "db500.yaml")
            self.site.configure(
                {
                    "site": "e2e",
                    "locatario": "acme",
                    "plcs": [self.plc(n + 1) for n in range(self._count)],
                    "outputs": [
                        {
                            "name": "central", "type": "mqtt", "host": "127.0.0.1",
                            "port": self.broker.port, "tls": False, "from": "oldest",
                        }
                    ],
                    "metrics": {"port": self.metrics_port},
                    "fleet": fleet,
                }
            )  # fmt: skip
            stack.enter_context(self.site)
            self.site.wait_running()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def wait_report(self, state: str, version: int | None, timeout_s: float = 40) -> dict[str, Any]:
        """The first report that says so, of those to come and the last that came."""
        since = max(0, len(self.centre.reports) - 1)

        def found() -> dict[str, Any] | None:
            for report in self.centre.reports[since:]:
                if (report["state"], report["version"]) == (state, version):
                    return report
            return None

        return until(found, timeout_s, lambda: f"{state} {version}\n{self.why()}")

    def why(self) -> str:
        """For a failing test."""
        return f"reports: {self.centre.states()}\n{self.site.log('fleet')[-3000:]}\n"

    def command(self, verb: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """``plc-edge fleet``."""
        return subprocess.run(
            [*PLC_EDGE, "fleet", verb, "-c", str(self.site.file), *words],
            capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, input=given,
        )  # fmt: skip

    def journal(self) -> dict[str, Any]:
        """The step it is in."""
        content: dict[str, Any] = json.loads((self.site.state / "fleet/journal.json").read_bytes())
        return content

    def rendered(self, process: str) -> Any:
        """What a process was told, None where there is none."""
        file = self.site.runtime / "conf" / f"{process}.json"
        return json.loads(file.read_bytes()) if file.exists() else None

    def reads(self, number: int = 1) -> bool:
        """Whether a PLC is being read now."""
        return bool(self.simulator.reads_ns(f"prensa-{number:02d}"))


def nobody_there() -> int:
    """A port where no PLC answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
