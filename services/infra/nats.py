"""A cluster of NATS servers where Mosquitto would be: the same accounts, as NATS says them.

docs/broker-cluster.md holds what differs, and what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.infra.model import Account, Fleet

if TYPE_CHECKING:
    from jinja2 import Environment

REPLICAS = 3
# Where a persistent session's messages are put before they are handed to its connection: without
# this right there is no QoS 1 subscription. A client's own filter must not begin so (NATS refuses).
DELIVERY = "$MQTT.sub.>"


@dataclass(frozen=True, slots=True)
class Grant:
    """One account: what it may publish and subscribe, as NATS subjects."""

    name: str
    comment: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def subjects(filters: Iterable[str]) -> tuple[str, ...]:
    """MQTT topics or filters as NATS subjects. ``a/#`` is two: to NATS ``a.>`` does not hold ``a``.

    NATS writes a dot within a level as ``//``; none of our names may hold one (CONTRACT §3).
    """
    found: list[str] = []
    for one in filters:
        words = {"+": "*", "#": ">"}
        subject = ".".join(words.get(level, level) for level in one.split("/"))
        found.append(subject)
        if subject.endswith(".>"):
            found.append(subject.removesuffix(".>"))
    return tuple(found)


def grants(accounts: Iterable[Account]) -> list[Grant]:
    """Of every account but those that only read what the broker says of itself: NATS says that at
    its monitoring port, not in topics.
    """
    found = []
    for a in accounts:
        read = [topic for topic in a.read if not topic.startswith("$SYS/")]
        if a.write or read:
            subscribe = (*subjects(read), DELIVERY) if read else ()
            found.append(Grant(a.name, a.comment, subjects(a.write), subscribe))
    return found


def files(env: Environment, fleet: Fleet) -> dict[str, str]:
    """Every node's configuration, the accounts of all, and their names."""
    context = {"f": fleet, "grants": grants(fleet.accounts), "replicas": REPLICAS}
    node = env.get_template("nats/nats.conf.j2")
    return {
        **{f"nats/{name}.conf": node.render(context, node=name) for name in fleet.nodes},
        "nats/accounts.conf.in": env.get_template("nats/accounts.conf.in.j2").render(context),
        "nats/users.txt": env.get_template("nats/users.txt.j2").render(context),
    }
