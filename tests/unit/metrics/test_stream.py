"""A client's slots: bounded, latest only, whatever is thrown at it."""

from __future__ import annotations

from starlette.datastructures import QueryParams

from services.metrics.stream import MAX_QUEUED_EVENTS, Client


def client(query: str) -> Client:
    return Client(QueryParams(query))


def test_a_slow_client_gets_only_the_latest() -> None:
    c = client("")
    for n in range(10_000):
        c.offer(("p1", "g", f"m{n % 3}"), b"%d;" % n)
    assert c.take() == b"9999;9997;9998;"
    assert c.take() == b""


def test_events_are_bounded_too() -> None:
    c = client("panel=1")
    for n in range(1_000):
        c.offer_event(b"%d," % n)
    told = c.take().decode().strip(",").split(",")
    assert len(told) == MAX_QUEUED_EVENTS
    assert told[-1] == "999"


def test_who_wants_what() -> None:
    everything, one_plc = client(""), client("plc=p1")
    one_group, panel = client("group=p1/g"), client("panel=1&plc=p1&group=p2/h")
    key, other = ("p1", "g", "m00"), ("p2", "h", "")
    assert everything.wants(key)
    assert everything.wants(other)
    assert one_plc.wants(key)
    assert not one_plc.wants(other)
    assert one_group.wants(key)
    assert not one_group.wants(other)
    # The panel's open PLC shows its groups' state; values only where a group is open.
    assert not panel.wants(key)
    assert panel.wants(other)
