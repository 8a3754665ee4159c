"""``plc-edge central``: the control plane at the centre, and the commands that speak to its API."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from services.cli import central_backup, central_demo, central_resources
from services.cli.central_centre import CentralOption, load, opened
from services.cli.common import JsonOption, console, error_console, fail
from services.runtime import central_config, render, supervise
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE, ConfigError, Problem


def register(app: typer.Typer) -> None:
    """Adds the verb and its sub-commands."""
    central = typer.Typer(help="The centre: tenants, boxes, credentials, quotas and usage.")
    central.command(help="Validate central.yaml.")(check)
    central.command(help="Make or upgrade the database; print the first operator's key.")(init)
    central.command(help="Run the control plane in the foreground, under supervisord.")(run)
    central.command(help="Show the whole pipeline on this machine, two tenants.")(central_demo.demo)
    central_backup.register(central)
    audit = central_resources.register(central)
    audit.command(help="Look for changes that are not the control plane's.")(verify)
    app.add_typer(central, name="central")


def check(config: CentralOption = None) -> None:
    """Says every mistake of the configuration at once."""
    centre = load(config)
    listen = centre.config.listen
    scheme = "https" if listen.tls else "http"
    console.print(f"{centre.file}: good", highlight=False, markup=False, soft_wrap=True)
    console.print(f"API       {scheme}://{listen.host}:{listen.port}/", highlight=False)
    for name, value in (("database", centre.database), ("state", centre.state)):
        console.print(f"{name:<9} {value}", highlight=False, markup=False, soft_wrap=True)


def init(
    config: CentralOption = None,
    another_key: Annotated[
        bool, typer.Option("--another-key", help="Make one more operator's key.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Makes what is missing, and changes nothing that is there."""
    centre = load(config)
    for folder in (centre.state, centre.runtime):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    central_config.write_clear_password(centre)
    from services.control_plane import audit, first
    from services.control_plane.fleet import ca

    with opened(centre) as database:
        # A new key for a chain that began with another would call every row of it forged.
        key = audit.make_key if not database.is_current() else audit.load_key
        made = first.prepare(database, audit.Chain(key(centre.state)), another_key=another_key)
    ca.make(centre.state)
    if json_:
        console.print_json(json.dumps({"api_key": made.api_key, "migrated": made.migrated}))
        return
    console.print("database made" if made.migrated else "database is current", highlight=False)
    if made.api_key is None:
        console.print(
            "there is an operator already; --another-key makes one more key", highlight=False
        )
        return
    console.print("operator's key, shown this once:", highlight=False)
    console.print(made.api_key, highlight=False, markup=False, soft_wrap=True)


def run(config: CentralOption = None) -> None:
    """Renders what the process reads and becomes its supervisor."""
    centre = load(config)
    central_config.write_clear_password(centre)
    with opened(centre) as database:
        if not database.is_current():
            hint = f"run `plc-edge central init -c {centre.file}`"
            message = "the database is not made yet, or older than this program"
            raise ConfigError([Problem(str(centre.file), "database", message, hint=hint)])
    if centre.config.broker is not None:
        from services.control_plane.broker import accounts

        accounts.load_key(centre.state)  # both processes need it
    rendered = central_config.render(centre)
    render.write(rendered, str(centre.file))
    content = rendered["control_plane"]
    supervise.become(content["runtime"], content["logs"], "supervisord-central.conf")


def verify(
    config: CentralOption = None,
    since: Annotated[
        str | None,
        typer.Option(help="SEQ:MAC as printed before: that row must still be there."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Reads the whole chain from the database itself, not through the API; exit 1 where it is
    broken.
    """
    centre = load(config)
    noted = None
    if since is not None:
        seq, _, mac = since.partition(":")
        if not seq.isdecimal() or len(mac) != 64:
            fail(f"--since {since}: give SEQ:MAC as `audit verify` printed it", EXIT_USAGE)
        noted = (int(seq), mac)
    from services.control_plane import audit
    from services.control_plane.tables import AuditHead

    chain = audit.Chain(audit.load_key(centre.state))
    with opened(centre) as database, database.reading(None) as session:
        faults = list(chain.faults(session, noted))
        head = session.get(AuditHead, audit.HEAD_ID)
        now = f"{head.seq}:{head.mac}" if head else None
    if json_:
        console.print_json(json.dumps({"whole": not faults, "faults": faults, "head": now}))
    else:
        for fault in faults:
            error_console.print(fault, style="red", highlight=False, soft_wrap=True)
        if not faults:
            console.print(f"the audit is whole: {now}", highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(EXIT_FAILURE)
