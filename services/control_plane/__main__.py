"""``python -P -m services.control_plane --config FILE``: the API of the centre."""

from services.control_plane.service import setup
from services.runtime.process import main

main("control_plane", setup)
