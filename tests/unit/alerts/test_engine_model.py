"""Engine = model on random streams: PLCs interleaved, repeats, gaps, bad quality, new epochs,
clocks set back, backlogs, restarts at any point. The long run:
``python -m tests.unit.alerts.long_run``.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.unit.alerts.streams import Twins, rule_sets, streams


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs=rule_sets, stream=streams)
def test_engine_and_model_say_the_same(
    specs: list[dict[str, Any]], stream: list[tuple[Any, ...]]
) -> None:
    Twins(specs).run(stream)
