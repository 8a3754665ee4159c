"""``plc-edge infra``: ``render`` writes broker, Telegraf, database, Grafana, Prometheus and compose
files; ``condense`` makes VictoriaMetrics' minutes and hours.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import ConfigOption, console, fail
from services.infra.database import Database, Step
from services.runtime import loader
from services.runtime.errors import EXIT_USAGE, ConfigError, Problem


class Accounts(StrEnum):
    """Who keeps the broker's accounts."""

    FILES = "files"
    CONTROL_PLANE = "control-plane"


class Broker(StrEnum):
    """What the boxes' messages go to."""

    MOSQUITTO = "mosquitto"
    NATS = "nats"


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    infra = typer.Typer(help="What surrounds the agent: broker, ingestion, database, dashboards.")
    infra.command(help="Write the files of the central side for review.")(render)
    infra.command(help="Make the minutes and hours of VictoriaMetrics, for ever.")(condense)
    app.add_typer(infra, name="infra")


def render(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    config: ConfigOption = None,
    fleet: Annotated[
        Path | None,
        typer.Option(
            "--fleet", help="Folder with the config.yaml of every box: *.yaml, */config.yaml."
        ),
    ] = None,
    accounts: Annotated[
        Accounts,
        typer.Option(
            "--accounts",
            help="Who keeps the broker's accounts: password and ACL files, or the control plane"
            " (`plc-edge central`) through the broker's dynamic-security plugin.",
        ),
    ] = Accounts.FILES,
    database: Annotated[
        Database, typer.Option("--database", help="Where the points are kept.")
    ] = Database.INFLUXDB2,
    broker: Annotated[
        Broker,
        typer.Option(
            "--broker", help="One Mosquitto, or a cluster of NATS servers that may lose a node."
        ),
    ] = Broker.MOSQUITTO,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            help="Name or address of one server of the cluster, as its certificate says it;"
            " three or five times.",
        ),
    ] = None,
) -> None:
    """Same configurations, same files; no file holds a secret. Exits 2 on a mistake in one."""
    nodes = _nodes(broker, accounts, node or [])
    # Not imported by other verbs: jinja2 costs 30 ms.
    from services.infra import model
    from services.infra import render as rendering

    files = [loader.find(config)] if fleet is None else boxes(fleet)
    if not files:
        fail(f"{fleet} holds no *.yaml and no */config.yaml", EXIT_USAGE)
    problems: list[Problem] = []
    sites = []
    for file in files:
        try:
            # The machine that renders need not know the boxes' passwords.
            sites.append(loader.load(file, check_secrets=False))
        except ConfigError as e:
            problems += e.problems
    if problems:
        raise ConfigError(problems)
    joined = model.fleet(sites, control_plane=accounts is Accounts.CONTROL_PLANE, nodes=nodes)
    rendered = rendering.render(joined, database=database)
    changed = rendering.write(rendered, out)
    for name in changed:
        console.print(f"wrote {out / name}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(rendered)} files, {len(changed)} changed", highlight=False)


def _nodes(broker: Broker, accounts: Accounts, nodes: list[str]) -> list[str]:
    """Those of the cluster; exits 2 where they make none."""
    if broker is Broker.MOSQUITTO:
        if nodes:
            fail("--node is for --broker nats: Mosquitto has one node", EXIT_USAGE)
        return []
    if accounts is Accounts.CONTROL_PLANE:
        fail(
            "--accounts control-plane works through Mosquitto's dynamic-security plugin; with"
            " --broker nats the accounts are in files: leave --accounts out",
            EXIT_USAGE,
        )
    if len(set(nodes)) != len(nodes) or len(nodes) not in (3, 5):
        fail(
            f"--broker nats needs --node three or five times, each another server (an even number"
            f" survives no more losses than one less): {', '.join(nodes) or 'none'} given",
            EXIT_USAGE,
        )
    for name in nodes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name):
            fail(f"--node {name!r} is no host name and no IPv4 address", EXIT_USAGE)
    return nodes


def boxes(folder: Path) -> list[Path]:
    """The configurations of a fleet, in a fixed order."""
    return sorted([*folder.glob("*.yaml"), *folder.glob("*/config.yaml")])


def condense(
    file: Annotated[Path, typer.Argument(help="victoriametrics/condense.json, as rendered.")],
    once: Annotated[
        list[Step] | None, typer.Option("--once", help="Only this, now; may be given again.")
    ] = None,
) -> None:
    """Reads and writes the stores without vmauth: their URLs stand in VM_..._URL, or are the
    names that the compose file gives them.
    """
    from services.infra import condense as condensing

    condensing.run(file, once or [])
