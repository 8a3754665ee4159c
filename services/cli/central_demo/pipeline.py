"""The whole pipeline on this machine, part after part, and then what it shows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.cli.central_demo.boxes import BOXES, SCAN, Placed
from services.cli.central_demo.broker import ADDRESS, CentralBroker, Ports
from services.cli.central_demo.checks import Checks
from services.cli.central_demo.database import Database
from services.cli.central_demo.parts import wait_for, wait_listening
from services.cli.central_demo.programs import Program
from services.cli.central_demo.reader import Account
from services.cli.central_demo.report import Report
from services.cli.children import Children
from services.cli.common import console
from services.runtime.errors import PlcEdgeError

PLC_EDGE = [sys.executable, "-P", "-m", "services.cli.main"]
FIRST_MESSAGES_S, RENDER_S = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Programs:
    """What was found on this machine."""

    mosquitto: Program
    telegraf: Program | None
    prometheus: Program | None


class Pipeline:
    """``ports``: one name after the other takes the next."""

    def __init__(
        self, children: Children, programs: Programs, database: Database, ports: Iterator[int]
    ) -> None:
        self._children = children
        self._programs = programs
        self._database = database
        self._folder = children.folder
        self._infra = self._folder / "infra"
        self.broker = CentralBroker(
            self._folder / "mosquitto", Ports(next(ports), next(ports), next(ports))
        )
        self._prometheus_port = next(ports)
        self.boxes = [
            Placed(box, self._folder / "boxes" / box.site / "config.yaml", next(ports), next(ports))
            for box in BOXES
        ]
        self.report = Report()

    def run(self, seconds: float) -> None:
        """All parts; messages for ``seconds``; then every check."""
        console.print("rendering, and starting the centre and two boxes")
        self._configure()
        self._start_broker()
        self._database.start(self._children, self._infra)
        self.report.ran(
            "database", _name(self._database.name, self._database.program), self._database.how
        )
        self._start_ingestion()
        with self._readers() as readers:
            self._start_boxes()
            self._start_prometheus()
            self._wait_for_messages(readers)
            console.print(f"messages flow; asking in {seconds:g} s", highlight=False)
            self._watch(seconds)
            console.print("asking all parts what came\n")
            self._check(readers)

    # -- the parts -----------------------------------------------------------------------

    def _configure(self) -> None:
        through = self._programs.telegraf is not None
        for placed in self.boxes:
            direct = [] if through else self._database.direct(placed.box)
            placed.write(self.broker, self._database.infra(), direct)
        fleet = str(self._folder / "boxes")
        command = [*PLC_EDGE, "infra", "render", "--fleet", fleet, "--out", str(self._infra)]
        command += ["--database", self._database.rendered_for]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=RENDER_S
        )
        if done.returncode:
            raise PlcEdgeError(f"infra render: {done.stderr.strip()}")
        self.broker.prepare(self._infra)

    def _start_broker(self) -> None:
        program = self._programs.mosquitto
        command = [program.path, "-c", str(self.broker.conf)]
        self._start({"mosquitto": (command, self.broker.ports.tls)})
        accounts = (self._infra / "mosquitto" / "users.txt").read_text().splitlines()[1:]
        how = f"TLS at {ADDRESS}:{self.broker.ports.tls}, {len(accounts)} accounts, rendered ACL"
        self.report.ran("broker", _name("Mosquitto", program), how)

    def _start_ingestion(self) -> None:
        program = self._programs.telegraf
        if program is None:
            self.report.did_not_run(
                "broker's ingestion",
                "no `telegraf` on PATH: each box also sends to the database by itself (output"
                " `http`, `format: influx`); what went through the broker is asserted with the"
                " tenants' readers",
            )
            return
        conf = self._infra / "telegraf" / "telegraf.conf"
        environment = {
            "TLS_CA": str(self.broker.ca),
            "PLC_EDGE_STAR": str(conf.with_name("plc_edge.star")),
            **{
                f"MQTT_PASSWORD_TELEGRAF_{role.upper()}": self.broker.password(f"telegraf-1-{role}")
                for role in ("dados", "sinais", "edge")
            },
            **self._database.telegraf(),
        }
        command = [program.path, "--config", str(conf), "--strict-env-handling"]
        self._children.start("telegraf", command, environment)
        how = "rendered telegraf.conf and plc_edge.star"
        self.report.ran("broker's ingestion", _name("Telegraf", program), how)

    def _start_prometheus(self) -> None:
        program = self._programs.prometheus
        if program is None:
            self.report.did_not_run(
                "metrics", "no `prometheus` on PATH: apt-get install prometheus"
            )
            return
        conf = self._infra / "prometheus" / "prometheus.yml"
        command = [
            program.path, f"--config.file={conf}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address={ADDRESS}:{self._prometheus_port}",
        ]  # fmt: skip
        self._start({"prometheus": (command, self._prometheus_port)})
        how = f"rendered prometheus.yml and alert rules, http://{ADDRESS}:{self._prometheus_port}"
        self.report.ran("metrics", _name("Prometheus", program), how)

    def _start_boxes(self) -> None:
        # Values that stand still for a second, so that a direct read and a scan see the same.
        simulate = [*PLC_EDGE, "simulate", "--tick-ms", "1000", "--config"]
        run = [*PLC_EDGE, "run", "--config"]
        self._start(
            {f"simulate-{p.box.site}": ([*simulate, str(p.file)], p.plc_port) for p in self.boxes}
        )
        self._start({p.box.site: ([*run, str(p.file)], p.metrics_port) for p in self.boxes})
        plcs = ", ".join(f"{p.box.plc} of {p.box.tenant}" for p in self.boxes)
        self.report.ran("PLCs", "plc-edge simulate", f"S7 servers: {plcs}")
        sites = ", ".join(f"{p.box.site} ({p.box.plan})" for p in self.boxes)
        how = f"{sites}: each its own supervisord and processes, {SCAN} a scan"
        self.report.ran("boxes", "plc-edge run", how)
        why = "this command runs no Grafana: the rendered files were never run with one"
        self.report.did_not_run("dashboards", why)

    def _start(self, parts: Mapping[str, tuple[list[str], int]]) -> None:
        """Name -> (command, port). Returns when all of them listen."""
        for name, (command, _) in parts.items():
            self._children.start(name, command)
        wait_listening(self._children, {name: port for name, (_, port) in parts.items()})

    # -- what it shows -------------------------------------------------------------------

    @contextlib.contextmanager
    def _readers(self) -> Iterator[dict[str, Account]]:
        """Each tenant's own account, from before the first message on."""
        with contextlib.ExitStack() as stack:
            yield {
                p.box.tenant: stack.enter_context(Account(self.broker, p.box.reader, reads=True))
                for p in self.boxes
            }

    def _wait_for_messages(self, readers: Mapping[str, Account]) -> None:
        for placed in self.boxes:
            messages = readers[placed.box.tenant].messages
            if not wait_for(messages.copy, FIRST_MESSAGES_S):
                tail = self._children.tail(placed.box.site)
                raise PlcEdgeError(f"no message of {placed.box.plc}:\n{tail}")

    def _watch(self, seconds: float) -> None:
        """Nothing may end meanwhile."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(0.2)
            self._children.check()

    def _check(self, readers: Mapping[str, Account]) -> None:
        checks = Checks(self.report, self.broker, self._database, readers)
        for placed in self.boxes:
            checks.values(placed)
        first, second = self.boxes
        # The same five days: within one plan, beyond the other.
        checks.retention(first, kept_days=5, too_old_days=8)
        checks.retention(second, kept_days=2, too_old_days=5)
        for placed in self.boxes:
            checks.downsampling(placed)
        for own, other in ((first, second), (second, first)):
            checks.broker_isolation(own, other)
            checks.database_isolation(own, other)
        checks.wrong_password(first)
        if self._programs.prometheus is not None:
            checks.prometheus(self._prometheus_port, self.boxes)


def _name(name: str, program: Program) -> str:
    return f"{name} {program.version}".strip()
