"""The API, one file per resource; every route goes through services/control_plane/unit.py."""
