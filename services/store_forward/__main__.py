"""``python -P -m services.store_forward --config FILE``."""

from services.runtime.process import main
from services.store_forward.store import setup

main("store_forward", setup)
