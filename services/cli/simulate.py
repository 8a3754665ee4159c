"""``plc-edge simulate``: an S7 server per configured PLC, with moving values; or, with ``--fleet``,
what many boxes send.
"""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import ConfigOption, console, error_console, fail, load_site
from services.runtime.errors import EXIT_USAGE
from services.simulator.control import Control, ask
from services.simulator.server import Server
from services.simulator.site import is_loopback, mirror_targets, stations
from services.simulator.station import monotonic_log

FLEET = "Many boxes' messages, to a broker"
# Where PLCs with an address that is not ours are served, unless --port-base says.
DEFAULT_PORT_BASE = 10_102


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Serve the configured PLCs with moving values, without a PLC.")(simulate)


def simulate(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option("--host", help="Where --port-base listens.")] = "127.0.0.1",
    port_base: Annotated[
        int | None,
        typer.Option("--port-base", min=1, max=65_000, help="First PLC's port; one more each."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same values.")] = 1,
    pdu: Annotated[int, typer.Option("--pdu", min=240, max=960, help="PDU granted.")] = 480,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=32, help="Parallel jobs granted.")] = 8,
    tick_ms: Annotated[int, typer.Option("--tick-ms", min=10, help="Values move so often.")] = 100,
    scan_log: Annotated[
        Path | None,
        typer.Option("--scan-log", help="Folder; <plc>.ns: monotonic ns of each read, u64."),
    ] = None,
    control: Annotated[
        Path | None, typer.Option("--control", help="Socket to stop and start single PLCs.")
    ] = None,
    tell: Annotated[
        str | None,
        typer.Option(
            "--tell",
            help="Tell the simulator at --control: `down PLC`, `up PLC`, `stop PLC`, `run PLC`,"
            " `refuse PLC`, `permit PLC`, `status`; a fleet: `away SHARE [FOR]`, `back`, `quiet`,"
            " `status`, `account FILE`.",
        ),
    ] = None,
    fleet: Annotated[
        int | None,
        typer.Option(
            "--fleet",
            min=1,
            max=9_999,
            rich_help_panel=FLEET,
            help="No S7 servers: the messages of so many boxes, each like --config's, into its"
            " broker.",
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker", rich_help_panel=FLEET, help="HOST:PORT, plain; then no --config is needed."
        ),
    ] = None,
    plcs: Annotated[
        int,
        typer.Option(
            "--plcs", min=1, max=1_000, rich_help_panel=FLEET, help="PLCs a box, with --broker."
        ),
    ] = 10,
    scan: Annotated[
        str,
        typer.Option("--scan", rich_help_panel=FLEET, help="A message so often, with --broker."),
    ] = "1s",
    values: Annotated[
        int,
        typer.Option(
            "--values", min=1, max=5_000, rich_help_panel=FLEET, help="In each, with --broker."
        ),
    ] = 10,
    tenants: Annotated[
        int,
        typer.Option(
            "--tenants",
            min=1,
            max=99,
            rich_help_panel=FLEET,
            help="Boxes are shared out among so many.",
        ),
    ] = 1,
    first_box: Annotated[
        int,
        typer.Option(
            "--first",
            min=1,
            max=9_999,
            rich_help_panel=FLEET,
            help="Number of the first box, where several simulators make one fleet.",
        ),
    ] = 1,
    backlog: Annotated[
        str,
        typer.Option("--backlog", rich_help_panel=FLEET, help="Waits in each at the start."),
    ] = "0s",
    outage: Annotated[
        list[str] | None,
        typer.Option(
            "--outage",
            rich_help_panel=FLEET,
            help="SHARE:AFTER:FOR, like 0.5:60s:5m: that share of the boxes loses its line.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0, rich_help_panel=FLEET, help="End after so long."),
    ] = None,
    account: Annotated[
        Path | None,
        typer.Option(
            "--account",
            rich_help_panel=FLEET,
            help="At the end: what each PLC has made, and the broker acknowledged.",
        ),
    ] = None,
) -> None:
    """Runs until Ctrl-C or SIGTERM."""
    if tell is not None:
        _tell(control, tell)
        return
    if fleet is not None:
        from services.cli import simulate_fleet  # the parts of a box: nobody else pays for them

        simulate_fleet.run(
            simulate_fleet.Options(
                fleet, config, broker, plcs, scan, values, tenants, first_box, backlog,
                outage or [], seconds, account, control, seed,
            )
        )  # fmt: skip
        return
    if broker is not None:
        fail("--broker is for --fleet", EXIT_USAGE)
    site = load_site(config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _raise_file_limit()
    made = list(stations(site, seed, pdu, jobs))
    simulated = [plc.id for plc, _, _ in made]
    for plc in site.config.plcs:
        if plc.id not in simulated:
            text = f"{plc.id} speaks `protocol: {plc.protocol}`: only S7 is simulated"
            error_console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not made:
        fail("no PLC of this configuration has `protocol: s7`", EXIT_USAGE)

    def tick() -> None:
        for _, station, mover in made:
            if station.running:  # a CPU in STOP keeps its data as they are
                mover.advance()

    server = Server(tick, tick_ms / 1_000)
    controller: Control | None = None
    try:
        places = {}
        for n, (plc, station, _) in enumerate(made):
            first = plc.all_hosts[0]  # of a redundant PLC too: one station is enough
            own = port_base is None and is_loopback(first)
            at = (first, plc.port) if own else (host, (port_base or DEFAULT_PORT_BASE) + n)
            for db, size_bytes in mirror_targets(site, plc):
                station.area(0x84, db, size_bytes)
            if scan_log is not None:
                scan_log.mkdir(parents=True, exist_ok=True)
                station.on_read = monotonic_log(str(scan_log / f"{plc.id}.ns"))
            try:
                place = server.add(station, *at)
            except OSError as e:
                hint = "is another program, or another PLC of this configuration, there?"
                if at[1] < 1_024:
                    hint = "ports below 1024 need root; give --port-base 10102"
                fail(f"{plc.id}: cannot listen at {at[0]}:{at[1]}: {e.strerror}; {hint}")
            places[plc.id] = f"{place.host}:{place.port}"
            if not own:
                variable = f"PLC_EDGE__PLCS__{plc.id.upper().replace('-', '_')}"
                given = f"HOSTS=[{place.host}]" if plc.hosts else f"HOST={place.host}"
                error_console.print(
                    f"{variable}__{given} {variable}__PORT={place.port}",
                    markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip
        if control is not None:
            try:
                controller = Control(server, control)
            except OSError as e:
                fail(f"--control {control}: {e.strerror}", EXIT_USAGE)
        line = " ".join(f"{name}={at}" for name, at in places.items())
        console.print(f"READY {line}", markup=False, highlight=False, soft_wrap=True)
        console.file.flush()
        while True:
            server.step()
    except KeyboardInterrupt:
        pass
    finally:
        if controller is not None:
            controller.close()
        server.close()


def _tell(control: Path | None, line: str) -> None:
    if control is None:
        fail("--tell needs --control, the socket of the running simulator", EXIT_USAGE)
    try:
        answer = ask(control, line)
    except OSError as e:
        fail(f"no simulator at {control}: {e.strerror}; start it with --control {control}")
    if answer.startswith("error"):
        fail(answer, EXIT_USAGE)
    console.print(answer, markup=False, highlight=False, soft_wrap=True)


def _raise_file_limit() -> None:
    """50 PLCs with several clients each need more than the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4_096 if hard == resource.RLIM_INFINITY else min(4_096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
