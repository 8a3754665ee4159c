"""``python -P -m services.historian --config FILE``."""

from services.historian.keeper import setup
from services.runtime.process import main

main("historian", setup)
