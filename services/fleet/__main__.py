"""``python -P -m services.fleet --config FILE``."""

from services.fleet.agent import setup
from services.runtime.process import main

main("fleet", setup)
