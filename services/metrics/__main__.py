"""``python -P -m services.metrics --config FILE``: everything seen, in one place."""

from services.metrics.service import setup
from services.runtime.process import main

main("metrics", setup)
