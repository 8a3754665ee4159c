"""The engine at the centre: real broker with accounts and TLS, real control plane, real process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.kit.central_alerts import HIGH, Box, CentralAlerts
from tests.kit.http_sink import HttpSink


@pytest.fixture
def world() -> Iterator[CentralAlerts]:
    with CentralAlerts() as world:
        yield world


def told(sink: HttpSink) -> list[dict[str, Any]]:
    return [orjson.loads(post.body) for post in sink.taken]


def high(world: CentralAlerts, tenant: str, sink: HttpSink | None = None) -> Box:
    """A tenant with the rule ``alto`` and perhaps somebody who is told."""
    box = world.tenant(tenant)
    if sink is not None:
        world.put(tenant, "receivers", "plantao", {"type": "webhook", "url": sink.url})
    world.put(tenant, "rules", "alto", HIGH)
    world.evaluated(tenant)
    return box


def moves(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(t["from"], t["to"]) for t in history]


UP, DOWN, OVER = ("ok", "disparando"), ("disparando", "resfriando"), ("resfriando", "ok")


def test_a_value_rings_is_acknowledged_and_ends(world: CentralAlerts) -> None:
    with HttpSink() as sink:
        box = high(world, "acme", sink)
        ts = box.send(90)
        (alarm,) = world.until(lambda: world.ringing("acme"))
        assert (alarm["rule"], alarm["plc"], alarm["site"]) == ("alto", "clp-1", "caixa-1")
        base = "/v1/tenants/acme/alerts"
        form = {"rule": "alto", "by": "ana"}
        assert world.centre.make(f"{base}/ack", form)["alarms"] == 1
        assert world.ringing("acme")[0]["confirmado"][0] == "ana"
        silence = {"rule": "alto", "for_s": 3_600, "why": "troca do sensor"}
        assert world.centre.make(f"{base}/silence", silence)["alarms"] == 1
        assert world.ringing("acme")[0]["silenciado"][1] == "troca do sensor"
        box.send(10)
        world.until(lambda: not world.ringing("acme"))
        history = world.history("acme")
        assert moves(history) == [UP, DOWN, OVER]
        assert history[0]["ts"] == ts
        world.until(lambda: sink.taken)
        assert told(sink)[0]["id"] == history[0]["id"]
        audit = world.centre.call("GET", "/v1/tenants/acme/audit?limit=2").body["items"]
        assert [row["action"] for row in audit] == ["alert.silence", "alert.ack"]
        assert audit[1]["after"]["by"] == "ana"
