"""Two tenants on one box, one of them on another box too; a broker with TLS whose accounts a
control plane keeps; the meter. The first tenant's PLCs can be made to change at every scan.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
import threading
import time
from types import TracebackType
from typing import Any, Self

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from services.runtime import central_config
from tests.kit.c_snap7 import CServer
from tests.kit.centre import Centre
from tests.kit.common import free_port
from tests.kit.dynsec import Accounts
from tests.kit.judge import Judge
from tests.kit.procs import Service
from tests.kit.site import Site

FLOODER, OTHER = "acme", "beta"
SCAN_S = 0.05
CALM_SCAN_S, CALM_FIELDS = 0.1, 20
# Of the flooding tenant, by box; the plan's points are shared out between them.
PLCS = {"caixa-1": ("prensa-01", "prensa-02"), "caixa-2": ("prensa-11",)}
CALM_PLC = "forno-01"
DB = 1


class Watch:
    """All data of one tenant as one of its readers sees it."""

    def __init__(self, broker: Accounts, made: dict[str, Any], tenant: str) -> None:
        assert broker.authority is not None
        self.judge = Judge()
        self.lags_ms: list[tuple[float, float]] = []
        """(when it came, Unix ms; how long after it was read)."""
        self.points = 0
        self.last: dict[str, Any] = {}
        subscribed = threading.Event()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=made["username"], protocol=paho.MQTTv311,
            clean_session=False,
        )  # fmt: skip
        client.username_pw_set(made["username"], made["secret"])
        client.tls_set(str(broker.authority.ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.on_connect = lambda c, *_: c.subscribe([(f"plc/{tenant}/#", 1)])
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 1)
        client.connect_async(broker.host, broker.port)
        client.loop_start()
        self._client = client
        assert subscribed.wait(15), "the reader is not admitted"

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        now_ms = time.time() * 1e3
        self.judge.take(message.topic, bytes(message.payload))
        if message.topic.count("/") == 2:
            body = orjson.loads(message.payload)
            self.lags_ms.append((now_ms, now_ms - body["ts"]))
            self.points += len(body["values"])
            self.last[body["plc_id"]] = body

    def close(self) -> None:
        """Ends it."""
        self._client.disconnect()
        self._client.loop_stop()


class Plant:
    """``plan``: the flooding tenant's points a minute; its PLCs send ``times`` as many when they
    are ``flooding``.
    """

    def __init__(self, plan: int, times: float) -> None:
        self.plan = plan
        self.share = plan // sum(map(len, PLCS.values()))
        self.fields = max(1, round(self.share * times * SCAN_S / 60))
        self.flooding = threading.Event()
        self._ending = threading.Event()
        self._count = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.broker = stack.enter_context(Accounts())
            self.centre = stack.enter_context(Centre("sqlite", self.broker.section()))
            self._register()
            self.meter = Service(central_config.render(self.centre.config)["meter"])
            stack.callback(self.meter.end)
            self.meter.wait_ready(60)
            self.servers = {
                plc: stack.enter_context(CServer({DB: bytes(4 * self.fields)}))
                for plcs in PLCS.values() for plc in plcs
            }  # fmt: skip
            calm = stack.enter_context(CServer({DB: bytes(4 * CALM_FIELDS)}))
            self.watch = {}
            for tenant in (FLOODER, OTHER):
                made = self._account(tenant, {"role": "reader"})
                self.watch[tenant] = Watch(self.broker, made, tenant)
                stack.callback(self.watch[tenant].close)
            self.sites = [stack.enter_context(Site(self._config(box, calm.port))) for box in PLCS]
            for site in self.sites:
                site.wait_running(60)
            writer = threading.Thread(target=self._write)
            writer.start()
            stack.callback(writer.join)
            stack.callback(self._ending.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    # -- what there is -------------------------------------------------------------------

    def _register(self) -> None:
        make = self.centre.make
        reply = self.centre.call(
            "PUT", "/v1/plans/inundado",
            {"max_devices": 9, "points_per_min": self.plan, "raw_days": 3},
        )  # fmt: skip
        assert reply.status in (200, 201), reply
        for tenant, plan in ((FLOODER, "inundado"), (OTHER, "enterprise")):
            make("/v1/tenants", {"id": tenant, "plan": plan})
        for box, plcs in PLCS.items():
            make(f"/v1/tenants/{FLOODER}/sites", {"id": box})
            for plc in plcs:
                make(f"/v1/tenants/{FLOODER}/devices", {"id": plc, "site": box})
        make(f"/v1/tenants/{OTHER}/sites", {"id": "caixa-1"})
        make(f"/v1/tenants/{OTHER}/devices", {"id": CALM_PLC, "site": "caixa-1"})

    def _account(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        made: dict[str, Any] = self.centre.make(
            f"/v1/tenants/{tenant}/credentials", {"kind": "broker", **form}
        )
        return made

    def _output(self, box: str, tenant: str) -> dict[str, Any]:
        assert self.broker.authority is not None
        made = self._account(tenant, {"role": "box", "site": box})
        password = self.centre.folder / f"{box}-{tenant}.pw"
        password.write_text(made["secret"])
        return {
            "name": tenant, "type": "mqtt", "host": self.broker.host, "port": self.broker.port,
            "from": "oldest", "locatarios": [tenant], "tls": {"ca": str(self.broker.authority.ca)},
            "username": made["username"], "password_file": str(password),
        }  # fmt: skip

    def _config(self, box: str, calm_port: int) -> dict[str, Any]:
        plcs = [
            _plc(name, self.servers[name].port, FLOODER, SCAN_S, self.fields, "on_change")
            for name in PLCS[box]
        ]
        tenants = [FLOODER]
        if box == "caixa-1":
            plcs.append(_plc(CALM_PLC, calm_port, OTHER, CALM_SCAN_S, CALM_FIELDS, "always"))
            tenants.append(OTHER)
        return {
            "site": box, "locatario": FLOODER, "plcs": plcs, "metrics": {"port": free_port()},
            "outputs": [self._output(box, tenant) for tenant in tenants],
            "quotas": {FLOODER: self.share * len(PLCS[box])},
        }  # fmt: skip

    # -- the flood -----------------------------------------------------------------------

    def image(self) -> bytes:
        """Values that no scan has seen."""
        self._count += 1
        return struct.pack(f">{self.fields}f", *([float(self._count)] * self.fields))

    def write_all(self, image: bytes) -> None:
        """Into every PLC of the flooding tenant."""
        for server in self.servers.values():
            server.write(DB, 0, image)

    def _write(self) -> None:
        """Twice in the time of a scan, also where nothing changes: what writes shares the cores."""
        image = self.image()
        while not self._ending.wait(SCAN_S / 2):
            if self.flooding.is_set():
                image = self.image()
            self.write_all(image)

    @property
    def newest(self) -> float:
        """What every PLC holds now, once the flood is over."""
        return float(self._count)


def _plc(
    name: str, port: int, tenant: str, scan_s: float, fields: int, publish: str
) -> dict[str, Any]:
    return {
        "id": name, "locatario": tenant, "host": "127.0.0.1", "port": port, "heartbeat": "5s",
        "groups": [
            {
                "name": "dados", "db": DB, "scan": f"{round(scan_s * 1e3)}ms", "publish": publish,
                "fields": [
                    {"name": f"c{i}", "address": f"DB{DB}.DBD{4 * i}:REAL"} for i in range(fields)
                ],
            }
        ],
    }  # fmt: skip
