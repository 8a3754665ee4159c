"""``plc-edge simulate --fleet``: the message streams of many boxes, into a real broker."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml

from services.cli.common import console, fail, load_site, print_problems
from services.runtime.errors import EXIT_USAGE, ConfigError
from services.runtime.process import Process
from services.runtime.site import Site
from services.runtime.units import duration_s
from services.simulator.control import ControlSocket
from services.simulator.fleet.fleet import Fleet, Outage
from services.simulator.fleet.many import ManySockets
from services.simulator.fleet.plan import Plan, made_up

# Of each box: its connection, and what wakes the loop when it has one.
FILES_A_BOX = 4


@dataclass(frozen=True, slots=True)
class Options:
    """As given on the command line."""

    count: int
    config: Path | None
    broker: str | None
    plcs: int
    scan: str
    values: int
    tenants: int
    first: int
    backlog: str
    outages: Sequence[str]
    seconds: float | None
    account: Path | None
    control: Path | None
    seed: int


def run(options: Options) -> None:
    """Until Ctrl-C, SIGTERM or ``--seconds``."""
    try:
        backlog_s = duration_s(options.backlog)
        outages = [Outage.parse(text) for text in options.outages]
    except ValueError as e:
        fail(str(e), EXIT_USAGE)
    _raise_file_limit(options.count)
    with tempfile.TemporaryDirectory(prefix="pe") as folder:
        process = _process(Path(folder))
        try:
            site = _site(options, Path(folder))
            plan = Plan(site, tenants=options.tenants, seed=options.seed)
            fleet = Fleet(
                process, plan, options.count, first=options.first, backlog_s=backlog_s,
                outages=outages, seed=options.seed,
            )  # fmt: skip
        except ConfigError as e:
            print_problems(e)
            raise typer.Exit(EXIT_USAGE) from None
        _serve(process, fleet, options)


def _site(options: Options, folder: Path) -> Site:
    """The configuration that all boxes share: the given one, or one made up."""
    if options.broker is None:
        return load_site(options.config)
    host, _, port = options.broker.rpartition(":")
    if options.config is not None or not host or not port.isdecimal():
        fail("give --broker HOST:PORT (no TLS, no account), or --config for all else", EXIT_USAGE)
    made = made_up((host, int(port)), options.plcs, options.scan, options.values)
    paths = {"state": str(folder / "s"), "runtime": str(folder / "r")}
    file = folder / "box.yaml"
    file.write_text(yaml.safe_dump({**made, "paths": paths}))
    return load_site(file)


def _process(folder: Path) -> Process:
    """The loop. Like a process of the centre it has nobody to send live frames to."""
    name = {"process": "simulate", "folder": "simulator", "where": "centre"}
    config = {**name, "runtime": str(folder), "state": str(folder)}
    return Process(config, folder / "none", ManySockets())


def _serve(process: Process, fleet: Fleet, options: Options) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop())
    control: ControlSocket | None = None
    if options.control is not None:
        try:
            control = ControlSocket(options.control, fleet.do)
        except OSError as e:
            fail(f"--control {options.control}: {e.strerror}", EXIT_USAGE)
        process.on_readable(control.socket, control.answer)
    fleet.open()
    try:
        while not process.stopping and not fleet.ready:
            process.step()
        if fleet.ready:
            plcs = sum(len(box.rows.plcs) for box in fleet.boxes)
            console.print(f"READY boxes={options.count} plcs={plcs}", highlight=False)
            console.file.flush()
            if options.seconds is not None:
                process.at(time.monotonic() + options.seconds, process.stop)
        process.run()
        fleet.close()
        if options.account is not None:
            fleet.account(options.account)
    finally:
        if control is not None:
            control.close()
    said = fleet.status()
    counts = ("made", "acknowledged", "dropped", "pending")
    console.print(" ".join(f"{key}={said[key]}" for key in counts), highlight=False, soft_wrap=True)


def _raise_file_limit(boxes: int) -> None:
    wanted = 256 + FILES_A_BOX * boxes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        fail(f"{boxes} boxes need {wanted} open files, the limit is {hard}: raise `ulimit -Hn`,"
             " or share the fleet out among several simulators (--first)")  # fmt: skip
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
