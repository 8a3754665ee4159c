"""``python -P -m services.reader --config FILE``."""

from services.reader.reader import setup
from services.runtime.process import main

main("reader", setup)
