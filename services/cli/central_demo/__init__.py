"""``plc-edge central demo``: the whole pipeline on this machine, shown and gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from services.cli.central_demo.pipeline import Pipeline, Programs
from services.cli.central_demo.programs import find, need
from services.cli.central_demo.victoriametrics import VictoriaMetrics
from services.cli.children import demonstration
from services.cli.common import console
from services.cli.demo_broker import free_port, is_free
from services.runtime.errors import EXIT_FAILURE, PlcEdgeError

INTERRUPTED = 130  # as a shell says of Ctrl-C
LAST_PORT = 65_535


def demo(
    seconds: Annotated[
        float, typer.Option(min=1, help="How long messages flow before it is asked what came.")
    ] = 15.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the folder: rendered files, logs, data.")
    ] = False,
    port_base: Annotated[
        int | None,
        typer.Option(min=1_024, max=65_000, help="Use ports from here on; default: free ones."),
    ] = None,
) -> None:
    """Exit 0 when all that it asserts holds; parts that are not on this machine are named."""
    # All of them first: a mistake is told before anything is started.
    programs = Programs(
        mosquitto=need("mosquitto", "mosquitto mosquitto-clients", "-h"),
        telegraf=find("telegraf"),
        prometheus=find("prometheus"),
    )
    need("openssl", "openssl", "version")
    engine = need("victoria-metrics", "victoria-metrics", "")
    vmauth = need("vmauth", "victoria-metrics", "")
    with demonstration() as children:
        children.keep = keep
        ports = _ports(port_base)
        database = VictoriaMetrics(children.folder, engine, vmauth, ports)
        pipeline = Pipeline(children, programs, database, ports)
        pipeline.run(seconds)
        pipeline.report.print()
    where = f"kept: {children.folder}" if keep else "removed"
    console.print(f"\nall processes have ended; folder {where}", highlight=False, soft_wrap=True)
    if children.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not pipeline.report.good:
        raise typer.Exit(EXIT_FAILURE)


def _ports(base: int | None) -> Iterator[int]:
    """Free ones, or those from ``base`` on. Raises PlcEdgeError where one is taken."""
    if base is None:
        given: set[int] = set()
        while True:
            port = free_port()
            if port not in given:
                given.add(port)
                yield port
    for port in range(base, LAST_PORT):
        if not is_free(port):
            raise PlcEdgeError(
                f"port {port} is taken by another program: give another --port-base, or none"
            )
        yield port
