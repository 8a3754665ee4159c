"""``python -P -m services.alerts --config FILE``."""

from services.alerts.alarms import setup
from services.runtime.process import main

main("alerts", setup)
