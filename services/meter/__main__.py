"""``python -P -m services.meter --config FILE``: the meter of the centre."""

from services.meter.service import setup
from services.runtime.process import main

main("meter", setup)
