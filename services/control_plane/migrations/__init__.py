"""The schema's history, for Alembic; run by services/control_plane/db.py."""
