"""``python -P -m services.mirror --config FILE``."""

from services.mirror.mirror import setup
from services.runtime.process import main

main("mirror", setup)
