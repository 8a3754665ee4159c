"""What Alembic runs; the connection and its transaction are those of ``Database.migrate``."""

from alembic import context

from services.control_plane.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
