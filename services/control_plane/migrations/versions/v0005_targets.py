"""Each side effect has a target; what was made outside is known by its id there."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """What waits already is the broker's, since it was asked for."""
    with op.batch_alter_table("effects") as effects:
        effects.add_column(
            sa.Column("target", sa.String(length=16), nullable=False, server_default="broker")
        )
        effects.add_column(
            sa.Column("since_ms", sa.BigInteger(), nullable=False, server_default="0")
        )
        effects.drop_index("effects_due")
    op.execute("UPDATE effects SET since_ms = due_ms")
    with op.batch_alter_table("effects") as effects:
        effects.alter_column("target", server_default=None)
        effects.alter_column("since_ms", server_default=None)
        effects.create_index("effects_due", ["target", "due_ms"], unique=False)
    op.create_table(
        "externals",
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "target", "name"),
    )
