"""The alert engine of a centre, whole: a Mosquitto with TLS and accounts, a control plane, the
process ``alerts``, and boxes that are real clients with real wills.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.runtime import central_config
from services.runtime.clock import now_ms
from tests.kit.centre import BOX_CONFIG, Centre, Reply
from tests.kit.common import until
from tests.kit.dynsec import Accounts
from tests.kit.http_sink import HttpSink
from tests.kit.procs import Service

HIGH = {"type": "threshold", "where": {"field": "a"}, "above": 80, "severity": "critica"}
# Of HIGH: (from, to).
UP, DOWN, OVER = ("ok", "disparando"), ("disparando", "resfriando"), ("resfriando", "ok")
EPOCH = 1_764_000_000_000


class Box:
    """A box of a tenant, as the broker sees one: its account, its will, its PLCs' messages."""

    def __init__(self, world: CentralAlerts, tenant: str, site: str = "caixa-1") -> None:
        self.tenant, self.site = tenant, site
        self._world = world
        form = {"kind": "broker", "role": "box", "site": site}
        base = f"/v1/tenants/{tenant}/credentials"
        self.account = world.centre.make(base, form)
        self.seqs: dict[str, int] = {}
        self.epoch = EPOCH
        self.connect()

    def connect(self) -> None:
        """(Again.) The status is retained, the will says ``offline``."""
        authority = self._world.broker.authority
        assert authority is not None
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set(self.account["username"], self.account["secret"])
        client.tls_set(str(authority.ca))
        status = f"edge/{self.tenant}/{self.site}/status"
        client.will_set(status, b'{"status":"offline"}', 1, True)
        client.on_connect = lambda c, *_: c.publish(
            status, orjson.dumps({"status": "online", "ts": now_ms()}), 1, True
        )
        client.reconnect_delay_set(1, 1)
        client.connect(self._world.broker.host, self._world.broker.port, 10)
        client.loop_start()
        until(client.is_connected, 10, "the box is connected")
        self.client = client

    def send(self, value: float, plc: str = "clp-1", **more: Any) -> int:
        """One message of group g1; its ts."""
        seq = self.seqs[plc] = self.seqs.get(plc, 0) + 1
        ts = more.pop("ts", None) or now_ms()
        message = {
            "v": 1, "site": self.site, "locatario_id": self.tenant, "plc_id": plc, "ts": ts,
            "epoch": self.epoch, "seq": seq, "group": "g1", "quality": "good",
            "values": {"a": value}, **more,
        }  # fmt: skip
        self.publish(f"plc/{self.tenant}/{plc}", message)
        return int(ts)

    def beat(self, plc: str = "clp-1", **more: Any) -> None:
        """A heartbeat."""
        message = {"ts": now_ms(), "status": "online", "interval_s": 10, "ip": "10.0.0.1", **more}
        self.publish(f"plc/{self.tenant}/{plc}/heartbeat", message, retain=True)

    def publish(self, topic: str, message: Any, *, retain: bool = False) -> None:
        """Returns when the broker has it."""
        self.client.publish(topic, orjson.dumps(message), 1, retain).wait_for_publish(15)

    def die(self) -> None:
        """As a box that loses its line: the broker tells of it by the will."""
        sock = self.client.socket()
        assert sock is not None
        # No DISCONNECT goes out, and this client does not come back.
        self.client.loop_stop()
        sock.close()

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):  # it has died before
            self.client.disconnect()
        self.client.loop_stop()


class CentralAlerts:
    """``with CentralAlerts("sqlite") as world``; tenants are made by ``tenant``."""

    def __init__(self, database: str = "sqlite") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mqp", dir="/tmp"))
        self.broker = Accounts("persistence true")
        self.centre = Centre(database, self.broker.section(), alerts=True)
        self.boxes: list[Box] = []
        self.keys: dict[str, dict[str, str]] = {}
        self.alerts: Service | None = None

    def start(self, env: dict[str, str] | None = None) -> Service:
        """The process ``alerts``, (again)."""
        self.alerts = Service(central_config.render(self.centre.config)["alerts"], env)
        self.alerts.wait_ready(30)
        return self.alerts

    def alerts_stop(self) -> None:
        """In good order."""
        assert self.alerts is not None
        assert self.alerts.terminate() == 0, self.alerts.stderr()

    def tenant(self, tenant: str, *, configured: bool = True) -> Box:
        """With a box that is connected, and its configuration."""
        self.keys[tenant] = self.centre.tenant(tenant)
        if configured:
            yaml = BOX_CONFIG.format(site="caixa-1", tenant=tenant, plc="clp-1", scan="1s")
            self.centre.make(f"/v1/tenants/{tenant}/sites/caixa-1/configs", {"yaml": yaml})
        box = Box(self, tenant)
        self.boxes.append(box)
        return box

    def put(self, tenant: str, what: str, name: str, spec: dict[str, Any]) -> Any:
        """A rule, receiver or route; must succeed."""
        reply = self.centre.call("PUT", f"/v1/tenants/{tenant}/{what}/{name}", spec)
        assert reply.status in (200, 201), reply
        return reply.body

    def evaluated(self, tenant: str, rules: int | None = None) -> None:
        """Waits until the engine of a tenant takes messages; the one that has so many rules."""
        assert self.alerts is not None
        self.until(lambda: self._is_up(tenant, rules))

    def _is_up(self, tenant: str, rules: int | None) -> bool:
        assert self.alerts is not None
        lines = [line for line in list(self.alerts.lines) if line.get("item") == tenant]
        begun = [line["msg"] for line in lines if line.get("code") == "tenant_begun"]
        if not begun or lines[-1].get("code") != "output_ok":
            return False
        return rules is None or begun[-1] == f"{tenant}: {rules} rules"

    def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Waits, and shows what the process said where it is in vain."""
        return until(condition, timeout_s, self.alerts.stderr if self.alerts else "")

    def ringing(self, tenant: str) -> list[dict[str, Any]]:
        """What the API says."""
        items: list[dict[str, Any]] = self._asked(f"/v1/tenants/{tenant}/alerts")["items"]
        return items

    def _asked(self, path: str) -> Any:
        """Also of an engine that begins anew just now."""
        reply = self.until(lambda: _not_away(self.centre.call("GET", path)))
        assert reply.status == 200, reply
        return reply.body

    def history(self, tenant: str) -> list[dict[str, Any]]:
        """All of it, the oldest first."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            path = f"/v1/tenants/{tenant}/alerts/history?limit=200{cursor}"
            part = self._asked(path)
            found += part["items"]
            if part["next"] is None:
                return found[::-1]
            cursor = f"&cursor={part['next']}"

    def __enter__(self) -> Self:
        self.broker.start()
        self.centre.start()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for box in self.boxes:
                box.close()
            if self.alerts is not None:
                if error is not None:
                    print(self.alerts.stderr())
                self.alerts.end()
            self.centre.__exit__(kind, error, trace)
        finally:
            self.broker.__exit__(kind, error, trace)
            shutil.rmtree(self.folder, ignore_errors=True)


def _not_away(reply: Reply) -> Reply | None:
    return None if reply.status == 503 else reply


def told(sink: HttpSink) -> list[dict[str, Any]]:
    """The notifications that were taken."""
    return [orjson.loads(post.body) for post in sink.taken]


def high(
    world: CentralAlerts, tenant: str, sink: HttpSink | None = None, *, configured: bool = True
) -> Box:
    """A tenant with the rule ``alto`` and perhaps somebody who is told."""
    box = world.tenant(tenant, configured=configured)
    if sink is not None:
        world.put(tenant, "receivers", "plantao", {"type": "webhook", "url": sink.url})
    world.put(tenant, "rules", "alto", HIGH)
    world.evaluated(tenant)
    return box


class Storm:
    """Values of two tenants, and what HIGH must make of them."""

    def __init__(self, boxes: list[Box], seed: int = 11) -> None:
        self.boxes = boxes
        self.chance = random.Random(seed)
        self._ts = dict.fromkeys((b.tenant for b in boxes), 0)
        self._rings = dict.fromkeys(self._ts, False)
        self.expected: dict[str, list[tuple[int, str, str]]] = {t: [] for t in self._ts}

    def step(self) -> None:
        """One value."""
        box = self.chance.choice(self.boxes)
        tenant = box.tenant
        ts = self._ts[tenant] = max(self._ts[tenant] + 1, now_ms())
        value = self.chance.choice((10, 90))
        box.send(value, ts=ts)
        rings, self._rings[tenant] = self._rings[tenant], value > 80
        if self._rings[tenant] and not rings:
            self.expected[tenant].append((ts, *UP))
        elif rings and not self._rings[tenant]:
            self.expected[tenant] += [(ts, *DOWN), (ts, *OVER)]

    def check(self, world: CentralAlerts, tenant: str, sink: HttpSink) -> None:
        """History and notifications are those of an undisturbed run, each under one id."""
        wanted = self.expected[tenant]

        def seen() -> list[tuple[int, str, str]]:
            return [(t["ts"], t["from"], t["to"]) for t in world.history(tenant)]

        world.until(lambda: len(seen()) >= len(wanted), 30)
        assert seen() == wanted
        must = {(ts, to) for ts, _, to in wanted if to != "ok"}

        def heard() -> set[tuple[int, str]]:
            return {(n["ts"], n["to"]) for n in told(sink)}

        world.until(lambda: heard() >= must, 30)
        assert heard() == must
        ids = {(n["id"], n["ts"], n["to"]) for n in map(orjson.loads, (p.body for p in sink.posts))}
        assert len(ids) == len({i[0] for i in ids}) == len(must)
