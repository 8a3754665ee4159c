"""Settings for every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is no failure; and what CI runs is the same every time. New examples are looked
# for on developers' machines.
settings.register_profile(
    "plc-edge",
    deadline=None,
    # How long an example takes says how busy the machine is.
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("plc-edge")
