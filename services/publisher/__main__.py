"""``python -P -m services.publisher --config FILE.json``: one output."""

from __future__ import annotations

from services.publisher.publisher import setup
from services.runtime.process import main

main("publisher", setup)
