"""The centre that a command of ``plc-edge central`` works on: its configuration, its database."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.common import error_console, fail
from services.runtime import central_config
from services.runtime.central_config import Centre

if TYPE_CHECKING:
    from services.control_plane.db import Database

CentralOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration; default /etc/plc-edge/central.yaml, else ./central.yaml.",
        show_default=False,
    ),
]
# Of the extra `central`: a box does without them.
_NEEDS = ("fastapi", "sqlalchemy", "alembic", "psycopg")


def load(config: Path | None) -> Centre:
    """The checked configuration; fails where the libraries of the centre are missing."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        fail(
            f"the control plane needs {', '.join(missing)}: pip install --require-hashes -r"
            " deploy/requirements-central.lock"
        )
    centre = central_config.load(central_config.find(config))
    for warning in centre.config.warnings:
        error_console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    return centre


@contextmanager
def opened(centre: Centre) -> Iterator[Database]:
    """Its database; says in one line what the database has against a command."""
    from sqlalchemy.exc import DBAPIError

    from services.control_plane import restore
    from services.control_plane.db import Database

    # A password of the URL lies in its file only once `init` or `run` has put it there.
    database = Database(centre.database, centre.password)
    try:
        restore.settle(database, centre.state)  # of one that was killed
        yield database
    except DBAPIError as e:
        fail(f"database {centre.database}: {str(e.orig).strip()}")
    finally:
        database.close()
