"""Hours of messages of a plant with known values, as its boxes send them: what every dashboard
needs to show something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.kit.telegraf import Telegraf

Message = tuple[str, dict[str, Any]]
STEP_MS, MINUTE_MS, HOUR_MS = 30_000, 60_000, 3_600_000
SITE = "planta-sp"
# Tenant -> (PLC, machine, name of what says that it runs, current): deploy/config.example.yaml.
PLCS = {
    "acme": ("prensa-01", "m01", "status_maquina", 5.0),
    "beta": ("forno-02", None, "maquina_ligada", 7.5),
}
# Two good parts and one bad one each 30 s; it runs every other 30 s.
GOOD, BAD, PENDING, LATENCY_MS = 2, 1, 17, 2.5


def messages(start_ms: int, end_ms: int) -> Iterator[Message]:
    """In the order of time: topic and body."""
    for n, ts in enumerate(range(start_ms, end_ms, STEP_MS)):
        for tenant, (plc, machine, runs, current) in PLCS.items():
            common = {"v": 1, "site": SITE, "locatario_id": tenant, "plc_id": plc,
                      "ip": "192.168.0.10", "ts": ts}  # fmt: skip
            data = {**common, "db": 500, "group": "db500", "measurement": "s7_db1",
                    "epoch": start_ms, "seq": n + 1, "latency_ms": LATENCY_MS}  # fmt: skip
            if machine:
                data["machine"] = machine
            values = {runs: n % 2 == 0, "contador_bom": GOOD * n, "contador_ruim": BAD * n,
                      "AI_Corrente": current, "AI_Vibracao": 0.25 * current}  # fmt: skip
            yield f"plc/{tenant}/{plc}", {**data, "quality": "good", "values": values}
            if ts % MINUTE_MS == 0:
                beat = {**common, "status": "online", "interval_s": 60.0, "scan_ms": 12.0,
                        "latency_ms": LATENCY_MS, "reads_ok": n, "reads_failed": n // 2,
                        "uptime_s": n, "pending": PENDING}  # fmt: skip
                yield f"plc/{tenant}/{plc}/heartbeat", beat
                status = {"v": 1, "site": SITE, "status": "online", "ts": ts}
                yield f"edge/{tenant}/{SITE}/status", status
            if ts % (10 * MINUTE_MS) == 0:
                yield from _odd(tenant, plc, common, data, ts)


def _odd(
    tenant: str, plc: str, common: dict[str, Any], data: dict[str, Any], ts: int
) -> Iterator[Message]:
    """What tables of faults show: a field that cannot be read, a loss, a failure, a wrong name."""
    at = ts + 1_000  # beside the good ones, not in their place
    base = f"plc/{tenant}/{plc}"
    unread = {"quality": "uncertain", "bad": {"AI_Corrente": "read_failed"}, "values": {}}
    yield base, {**data, **unread, "ts": at}
    yield base, {**data, "ts": at + 1, "quality": "good", "plc_id": "outro", "values": {"x": 1}}
    gap = {**common, "ts": at, "epoch": 5, "first_seq": 10, "last_seq": 19, "count": 10,
           "from_ts": ts, "to_ts": ts, "reason": "store_full"}  # fmt: skip
    yield f"{base}/gap", gap
    failure = {"code": "timeout", "message": "sem resposta", "since": ts, "attempts": 3}
    # Before the good one of this minute: all is well in the end.
    beat = {
        **common,
        "ts": ts - 1_000,
        "status": "degraded",
        "interval_s": 60.0,
        "failure": failure,
    }
    yield f"{base}/heartbeat", beat


def feed(telegraf: Telegraf, start_ms: int, end_ms: int) -> None:
    """All of it through Telegraf's configuration, and what it scrapes and says of itself."""
    for topic, body in messages(start_ms, end_ms):
        telegraf.take(topic, body, end_ms * 1_000_000)
    for n, ts in enumerate(range(start_ms, end_ms, MINUTE_MS)):
        ns = ts * 1_000_000
        for tenant, (plc, *_) in PLCS.items():
            fields = {
                "plc_edge_reconnects_total": float(n),
                "plc_edge_scan_overruns_total": 3.0 * n,
            }
            tags = {"plc": plc, "site": SITE, "_dono": tenant}
            telegraf.put({"name": "agente", "tags": tags, "fields": fields, "time": ns})
        telegraf.put({"name": "internal_write", "tags": {"output": "influxdb", "host": "central"},
                      "fields": {"metrics_dropped": 4.0}, "time": ns})  # fmt: skip
        # Nobody's topic: refused and counted.
        text = '{"ts": 1, "measurement": "s7_db1", "values": {}}'
        telegraf.put(telegraf.parsed("dados", "plc/gama/p", text, ns))
