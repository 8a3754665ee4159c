"""The schema that the migrations make is the one that the program maps, on both databases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from services.control_plane.db import Database
from services.control_plane.tables import Base
from services.runtime.errors import ConfigError
from tests.kit import postgres
from tests.kit.centre import DATABASES


@pytest.mark.parametrize("kind", DATABASES)
def test_migrations_make_what_is_mapped(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db" if kind == "sqlite" else postgres.cluster().create()
    database = Database(url)
    assert database.migrate()
    assert not database.migrate(), "the second time there is nothing to do"
    with database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(ConfigError, match="newer plc-edge"):
        database.is_current()
    database.close()


def test_a_migration_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both databases undo a change of schema."""
    from services.control_plane import db

    copy = tmp_path / "migrations"
    shutil.copytree(Path(db.__file__).parent / "migrations", copy)
    file = next((copy / "versions").glob("v0001*.py"))
    file.write_text(file.read_text().rstrip() + "\n    raise RuntimeError('power cut')\n")

    def broken() -> Config:
        config = Config()
        config.set_main_option("script_location", str(copy))
        return config

    for url in (f"sqlite:///{tmp_path}/c.db", postgres.cluster().create()):
        database = Database(url)
        with monkeypatch.context() as patch:
            patch.setattr(db, "_alembic", broken)
            with pytest.raises(RuntimeError, match="power cut"):
                database.migrate()
        assert not database.is_current()
        assert database.migrate()
        database.close()
