"""``python -m tests.chaos.broker_cluster``: a Markdown table; ends with 1 on any loss.

Three nodes, each in a network namespace of its own (root); one after the other is killed and comes
back, one comes back with an empty disk, the other two are killed at once, one is cut off from the
other two, and one from everybody. Five minutes.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.chaos.broker_cluster.driver import Driver, Verdict
from tests.chaos.broker_cluster.plant import Plant, files
from tests.kit.namespaces import Net, possible
from tests.kit.nats_cluster import Cluster

CALM_S = 10.0


def table(v: Verdict, rate: float) -> str:
    """The figures of one run."""
    rows = [
        ("duration, rate", f"{v.seconds:.0f} s, {rate:.0f} messages/s"),
        ("acquired, delivered", f"{v.acquired}, {v.delivered}"),
        ("lost", str(len(v.lost))),
        ("out of order at first delivery", str(len(v.disordered))),
        ("repeated, of these with other content", f"{v.repeats}, {v.changed}"),
        ("dead letters", str(v.refused)),
        ("times the cluster had no session of the subscriber", str(v.sessions_lost)),
        (
            "store to subscriber, calm (median, p99)",
            f"{v.calm_ms[0]:.0f} ms, {v.calm_ms[1]:.0f} ms",
        ),
    ]
    lines = ["| cluster | |", "|---|---|", *(f"| {k} | {t} |" for k, t in rows), ""]
    lines += [
        "| fault | nothing came for | nothing late after | out of order"
        " | node whole again | states right after |",
        "|---|---|---|---|---|---|",
    ]
    for f in v.faults:
        times = f"{f.back_s:.1f} s | {f.states_s:.1f} s"
        lines.append(
            f"| {f.what} | {f.silence_s:.1f} s | {f.late_s:.1f} s | {f.disordered} | {times} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.broker_cluster", description=__doc__
    )
    parser.add_argument("--rate", type=float, default=2_000.0, help="messages a second")
    parser.add_argument("--boxes", type=int, default=3)
    parser.add_argument("--tenants", type=int, default=5, help="of each box: its connections")
    parser.add_argument("--window", type=int, default=1_000, help="of each box: 1 keeps the order")
    parser.add_argument("--away", type=float, default=15.0, help="seconds")
    parser.add_argument("--set", action="append", default=[], metavar="OLD=NEW",
                        help="replace this text in each node's configuration")  # fmt: skip
    args = parser.parse_args()
    if not possible():
        sys.stderr.write("needs root and network namespaces (iproute2)\n")
        return 2

    def change(text: str) -> str:
        for pair in args.set:
            old, _, new = pair.partition("=")
            assert old in text, f"{old!r} is in no node's configuration"
            text = text.replace(old, new)
        return text

    with (
        Net() as net,
        Cluster(
            lambda nodes: files(args.boxes, args.tenants, nodes), net.hosts, net.launchers, change
        ) as cluster,
        Plant(
            cluster, boxes=args.boxes, tenants=args.tenants, rate=args.rate, window=args.window
        ) as plant,
    ):
        driver = Driver(plant)
        plant.feed()
        time.sleep(CALM_S)
        for host in net.hosts:
            driver.kill(host, away_s=args.away)
            time.sleep(CALM_S)
        driver.kill(net.hosts[0], away_s=args.away, wipe=True)
        time.sleep(CALM_S)
        # The new one has a share in the majority now: what it did not take over would be missing.
        driver.kill(*net.hosts[1:], away_s=args.away)
        time.sleep(CALM_S)
        for whole in (False, True):
            driver.part(net, cluster.leader(), args.away, whole)
            time.sleep(CALM_S)
        verdict = driver.judge()
    sys.stdout.write(table(verdict, args.rate) + "\n")
    for what in verdict.lost[:20]:
        sys.stdout.write(f"lost: {what}\n")
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
