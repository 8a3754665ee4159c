"""``python -m tests.e2e.central_proof``: two tenants from nothing, by the API alone, with real
boxes; then one of them is suspended, resumed, moved to another plan and has its credentials rotated
while all of it runs. Ends with 1 where a message is lost or changed, or a permission is another
than it must be.

Each tenant has a box (``plc-edge run`` under supervisord) with two simulated PLCs, which sends over
TLS to one Mosquitto whose accounts the control plane keeps. Whoever watches is no tenant's: an
account as Telegraf's, made by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.runtime.clock import now_ms
from tests.bench.result import percentiles
from tests.kit.centre import DATABASES, Centre
from tests.kit.common import free_ports, until
from tests.kit.dynsec import Accounts, connected
from tests.kit.judge import Judge
from tests.kit.simulator import Simulator
from tests.kit.site import Site

BUSY, OTHER = "acme", "beta"
OBSERVER, OBSERVER_PASSWORD = "observador", "observa"
PLCS = ("prensa-01", "forno-02")
SCAN = "100ms"
OVERLAP_S = 5
SUSPENDED_S = 3.0
OK, DENIED = ("Success", "No matching subscribers"), "Not authorized"
FIELDS = [
    {"name": "velocidade", "address": "DB500.DBD2:REAL"},
    {"name": "ciclos", "address": "DB500.DBD6:DINT"},
]
BEFORE, DURING, AFTER = "before", "during", "after"


class Observer:
    """Everything that any box sends, judged as it comes, and how old it was: latency by phase."""

    def __init__(self, broker: Accounts) -> None:
        assert broker.authority is not None
        acls = [
            {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
            for kind in ("subscribePattern", "publishClientReceive")
            for topic in ("plc/#", "edge/#")
        ]
        broker.ask(
            {"command": "createRole", "rolename": OBSERVER, "acls": acls},
            {"command": "createClient", "username": OBSERVER, "password": OBSERVER_PASSWORD,
             "roles": [{"rolename": OBSERVER}]},
        )  # fmt: skip
        self.judges: dict[str, Judge] = defaultdict(Judge)
        self.phase = BEFORE
        self.ages_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._subscribed = False
        client = paho.Client(CallbackAPIVersion.VERSION2, OBSERVER, protocol=paho.MQTTv5)
        client.username_pw_set(OBSERVER, OBSERVER_PASSWORD)
        client.tls_set(str(broker.authority.ca))
        client.on_connect = lambda c, *_: c.subscribe([("plc/#", 1), ("edge/#", 1)])
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect(broker.host, broker.port)
        client.loop_start()
        self._client = client
        until(lambda: self._subscribed, 10, broker.log)

    def _on_subscribe(self, _c: Any, _u: Any, _m: Any, reasons: Any, _p: Any) -> None:
        assert [str(r) for r in reasons] == ["Granted QoS 1"] * 2, reasons
        self._subscribed = True

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        arrived_ms = time.time() * 1_000
        levels, payload = message.topic.split("/"), bytes(message.payload)
        if payload == b"1":  # of who tries what is allowed
            return
        tenant = levels[1]
        self.judges[tenant].take(message.topic, payload)
        if levels[0] == "plc" and len(levels) == 3:
            self.ages_ms[self.phase, tenant].append(arrived_ms - json.loads(payload)["ts"])

    def close(self) -> None:
        """Ends it."""
        self._client.disconnect()
        self._client.loop_stop()


class Plant:
    """One tenant: its box, its PLCs, its account at the broker."""

    def __init__(self, centre: Centre, broker: Accounts, tenant: str, plan: str) -> None:
        self.centre, self.broker, self.tenant = centre, broker, tenant
        self.base, self.box = f"/v1/tenants/{tenant}", f"planta-{tenant}"
        centre.make("/v1/tenants", {"id": tenant, "plan": plan})
        centre.make(f"{self.base}/sites", {"id": self.box})
        form = {"role": "box", "site": self.box}
        self._key: str = centre.make(f"{self.base}/credentials", form)["secret"]
        self.account = self.new_account()
        ports = free_ports(len(PLCS) + 1)
        group = {"name": "db500", "db": 500, "scan": SCAN, "publish": "always", "fields": FIELDS}
        self._plcs = [
            {"id": f"{name}", "host": "127.0.0.1", "port": port, "heartbeat": "1s",
             "groups": [group]}
            for name, port in zip(PLCS, ports, strict=False)
        ]  # fmt: skip
        self._metrics = {"port": ports[-1]}
        self._simulator = Simulator({"site": self.box, "locatario": tenant, "plcs": self._plcs})
        self.site = Site(self.config())
        self._stack = contextlib.ExitStack()

    def new_account(self, role: str = "box") -> dict[str, Any]:
        """One more, by the API."""
        whose = {"role": role, **({"site": self.box} if role == "box" else {})}
        made: dict[str, Any] = self.centre.make(
            f"{self.base}/credentials", {"kind": "broker", **whose}
        )
        return made

    def config(self) -> dict[str, Any]:
        """config.yaml with the account that holds now."""
        assert self.broker.authority is not None
        output = {
            "name": "central", "type": "mqtt", "host": self.broker.host, "from": "oldest",
            "port": self.broker.port, "tls": {"ca": str(self.broker.authority.ca)},
            "username": self.account["username"], "password_file": "central.pw",
        }  # fmt: skip
        plant = {"site": self.box, "locatario": self.tenant, "plcs": self._plcs}
        return {**plant, "metrics": self._metrics, "outputs": [output]}

    def configure(self) -> None:
        """As a person does: the new text goes to the centre, which checks it; the box gets the
        version that the centre has kept, and its password file.
        """
        self.site.configure(self.config())
        path = f"{self.base}/sites/{self.box}/configs"
        made = self.centre.make(path, {"yaml": self.site.file.read_text()})
        kept = self.centre.call("GET", f"{path}/{made['version']}", key=self._key)
        assert kept.status == 200, kept
        password = self.site.folder / "central.pw"
        password.touch(mode=0o600)
        password.write_text(self.account["secret"])
        self.site.file.write_text(kept.body["yaml"])

    def rotate(self) -> None:
        """A new account for the same credential, taken up by the running box before the old one
        ends.
        """
        old = self.account
        path = f"{self.base}/credentials/{old['id']}/rotate"
        self.account = self.centre.make(path, {"overlap_s": OVERLAP_S})
        self.configure()
        applied = self.site.run("apply")
        assert applied.returncode == 0, applied.stderr
        gone = lambda: old["username"] not in self.broker.accounts()  # noqa: E731
        until(gone, OVERLAP_S + 20, self.broker.log)

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(self._simulator)
            self.configure()
            connected(self.broker, self.account).close()  # it is there
            stack.enter_context(self.site)
            self.site.wait_running(60)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def permissions(plants: dict[str, Plant], broker: Accounts) -> Iterator[str]:
    """What of the matrix is not as it must be: each account against each topic and filter, in both
    directions, while the boxes run.
    """
    topics = {f"edge/{t}/{p.box}/status": t for t, p in plants.items()}
    for tenant, name, end in itertools.product(plants, PLCS, ("", "/heartbeat", "/gap")):
        topics[f"plc/{tenant}/{name}{end}"] = tenant
    nobodys = ["plc/acme/outro", "plc/gama/prensa-01", "plc/acme", "x", "$CONTROL/x/v1"]
    filters = {f: t for t in plants for f in (f"plc/{t}/#", f"edge/{t}/#", f"plc/{t}/{PLCS[0]}")}
    wide = ["#", "plc/#", "edge/#", f"plc/+/{PLCS[0]}", "$SYS/#", "$CONTROL/#"]
    for (tenant, plant), role in itertools.product(plants.items(), ("box", "reader")):
        with connected(broker, plant.new_account(role)) as client:
            for topic in [*topics, *nobodys]:
                may = role == "box" and topics.get(topic) == tenant
                said = client.publish(topic)
                if (said in OK) != may or said not in (*OK, DENIED):
                    yield f"{role} of {tenant} publishes {topic}: {said}"
            for pattern in [*filters, *wide]:
                may = role == "reader" and filters.get(pattern) == tenant
                said = client.subscribe(pattern)
                if said != ("Granted QoS 1" if may else DENIED):
                    yield f"{role} of {tenant} subscribes {pattern}: {said}"
            if role == "reader":
                until(lambda c=client: not c.messages.empty(), 10, "a message")  # type: ignore[misc]
                seen = {client.messages.get() for _ in range(client.messages.qsize())}
                yield from (f"reader of {tenant} got {t}" for t in seen if topics[t] != tenant)


@dataclass
class Verdict:
    """What the proof has shown."""

    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    latency: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """(phase, tenant) -> percentiles of the age of a value when it arrives, ms."""
    rotations: int = 0


def prove(database: str, seconds: float, rotations: int) -> Verdict:
    """``seconds`` of each phase; ``rotations`` while the second lasts, at least."""
    v = Verdict()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Accounts())
        centre = stack.enter_context(Centre(database, broker.section()))
        observer = Observer(broker)
        stack.callback(observer.close)
        plants = {}
        for tenant, plan in ((BUSY, "pro"), (OTHER, "pro")):
            plants[tenant] = stack.enter_context(Plant(centre, broker, tenant, plan))
        busy = plants[BUSY]
        flowing(observer, plants)
        v.wrong += permissions(plants, broker)
        observer.ages_ms.clear()
        time.sleep(seconds)
        observer.phase = DURING
        end_s = time.monotonic() + seconds
        while v.rotations < rotations or time.monotonic() < end_s:
            suspended_and_resumed(busy, observer, v)
            other = {"pro": "enterprise", "enterprise": "pro"}
            plan = other[centre.call("GET", busy.base).body["plan"]]
            assert centre.call("PATCH", busy.base, {"plan": plan}).status == 200
            busy.rotate()
            v.rotations += 1
        flowing(observer, plants)
        observer.phase = AFTER
        time.sleep(seconds / 2)
        flowing(observer, plants)
        v.wrong += permissions(plants, broker)
        v.wrong += centre.faults()
    report(v, observer)
    return v


def flowing(observer: Observer, plants: dict[str, Plant]) -> None:
    """Returns when what is read now arrives: nothing of before is waiting any more."""
    since_ms = now_ms()
    logs = lambda: "\n".join(p.site.logs() for p in plants.values())  # noqa: E731
    for tenant, name in itertools.product(plants, PLCS):
        newest = observer.judges[tenant].newest_ts_ms
        until(lambda n=newest, p=name: n.get(p, 0) > since_ms, 60, logs)  # type: ignore[misc]


def suspended_and_resumed(plant: Plant, observer: Observer, v: Verdict) -> None:
    """Its box waits, with all it reads, and goes on."""
    plant.centre.make(f"{plant.base}/suspend", {})
    until(lambda: not plant.broker.usable(plant.tenant)[0], 10, plant.broker.log)
    judge = observer.judges[plant.tenant]
    time.sleep(SUSPENDED_S / 3)  # what was on its way is there
    before = judge.delivered
    time.sleep(SUSPENDED_S)
    if judge.delivered != before:
        v.wrong.append(f"{plant.tenant} sends while it is suspended")
    plant.centre.make(f"{plant.base}/resume", {})


def report(v: Verdict, observer: Observer) -> None:
    """As Markdown; what is wrong goes into ``v.wrong``."""
    v.lines += ["| tenant | messages | lost | changed | out of order | told in gaps | repeated |"]
    v.lines += ["|---|---|---|---|---|---|---|"]
    for tenant, j in sorted(observer.judges.items()):
        cells = (j.delivered, len(j.lost), j.changed, len(j.disordered), j.told, j.repeats)
        v.lines.append(f"| {tenant} | {' | '.join(map(str, cells))} |")
        if any(cells[1:5]):
            v.wrong.append(f"{tenant}: lost {j.lost[:3]}, out of order {j.disordered[:3]}")
    v.lines += ["", "| age on arrival, ms | messages | p50 | p90 | p99 | greatest |"]
    v.lines += ["|---|---|---|---|---|---|"]
    for tenant, phase in itertools.product((OTHER, BUSY), (BEFORE, DURING, AFTER)):
        ages = observer.ages_ms[phase, tenant]
        figures = dict(percentiles(ages))
        v.latency[phase, tenant] = figures
        numbers = " | ".join(f"{x:.1f}" for x in (*figures.values(), max(ages)))
        v.lines.append(f"| {tenant}, {phase} | {len(ages)} | {numbers} |")


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.central_proof", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--rotations", type=int, default=3, help="at least so many")
    parser.add_argument("--database", choices=DATABASES, action="append")
    args = parser.parse_args()
    wrong: list[str] = []
    for database in args.database or DATABASES:
        v = prove(database, args.seconds, args.rotations)
        title = f"{database}: {BUSY} suspended, resumed, moved and rotated {v.rotations} times"
        sys.stdout.write("\n".join([title, "", *v.lines, *v.wrong, "", ""]))
        sys.stdout.flush()
        wrong += v.wrong
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
