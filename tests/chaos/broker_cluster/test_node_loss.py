"""The node that leads the messages is killed with -9 under way; the long run, with every node and
partitions, is ``python -m tests.chaos.broker_cluster``.
"""

from __future__ import annotations

import time

from tests.chaos.broker_cluster.driver import Driver
from tests.chaos.broker_cluster.plant import Plant, files
from tests.kit.nats_cluster import Cluster


def test_a_killed_leader_loses_nothing() -> None:
    with (
        Cluster(lambda nodes: files(2, 2, nodes)) as cluster,
        Plant(cluster, boxes=2, tenants=2, rate=100) as plant,
    ):
        driver = Driver(plant)
        plant.feed()
        time.sleep(2)
        driver.kill(cluster.leader(), away_s=3)
        verdict = driver.judge(20)
    assert verdict.kept, verdict
    assert verdict.delivered > 500
    assert verdict.faults[0].late_s < 20, verdict.faults
