"""A day's backlog comes in one burst, through broker and process: nobody is told, and the history
is complete. What the whole process manages a second comes out by the way.
"""

from __future__ import annotations

import time

import orjson
import psutil

from services.runtime.clock import now_ms
from tests.kit.central_alerts import EPOCH, CentralAlerts, high, told
from tests.kit.http_sink import HttpSink

Figures = list[tuple[str, str]]
DAY_MS = 86_400_000
# Values of a message; one of them is watched by `alto`, all by a rule of every field.
FIELDS = 25
# It fires that often in the day, and ends as often.
ALARMS = 500
WINDOW = 1_000


def run(messages: int) -> Figures:
    """So many messages of FIELDS values, 24 hours old to now."""
    with CentralAlerts() as w, HttpSink() as sink:
        box = high(w, "acme", sink, configured=False)
        w.put(
            "acme", "rules", "todos", {"type": "threshold", "where": {"field": "f*"}, "above": 1e9}
        )
        w.evaluated("acme", rules=2)
        assert w.alerts is not None
        process = psutil.Process(w.alerts.pid)
        cpu_s = sum(process.cpu_times()[:2])
        begin_ms, every = now_ms() - DAY_MS, messages // (2 * ALARMS)
        others = [f"f{i:02d}" for i in range(FIELDS - 1)]
        begin_s = time.monotonic()
        flying = []
        for n in range(messages):
            high_now = n // every % 2 == 1
            message = {
                "v": 1, "site": "caixa-1", "locatario_id": "acme", "plc_id": "clp-1",
                "ts": begin_ms + n * DAY_MS // messages, "epoch": EPOCH, "seq": n + 1,
                "group": "g1", "quality": "good", "replay": True,
                "values": {"a": 90 if high_now else 10, **dict.fromkeys(others, n % 97)},
            }  # fmt: skip
            flying.append(box.client.publish("plc/acme/clp-1", orjson.dumps(message), 1))
            if len(flying) >= WINDOW:
                flying[0].wait_for_publish(60)
                flying = flying[WINDOW // 2 :]
        sent_s = time.monotonic() - begin_s
        box.seqs["clp-1"] = messages
        box.send(1)
        # Each that fired has ended: by the last of the backlog, or by the value of now.
        wanted = 3 * (messages // every // 2)
        w.until(lambda: _count(w) >= wanted, 600)
        took_s = time.monotonic() - begin_s
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
        history = w.history("acme")
        assert len(history) == wanted, f"{len(history)} transitions, not {wanted}"
        assert not [t for t in history if t["notify"]], "somebody would have been told"
        # A receiver is told in order: whatever the backlog had told would come first.
        ts = box.send(90)
        w.until(lambda: sink.taken)
        assert [t["ts"] for t in told(sink)] == [ts], "somebody was told of the backlog"
        values = messages * FIELDS
        return [
            ("messages, values", f"{messages:,}, {values:,}"),
            ("transitions in the history", f"{len(history):,}, all of them"),
            ("notifications", "0"),
            ("sent by the box in", f"{sent_s:.1f} s"),
            ("evaluated and committed in", f"{took_s:.1f} s: {values / took_s:,.0f} values/s"),
            ("CPU of the process", f"{cpu_s:.1f} s: {values / cpu_s:,.0f} values/s of CPU"),
            ("its memory afterwards", f"{process.memory_info().rss / 2**20:.0f} MB"),
        ]


def _count(w: CentralAlerts) -> int:
    """Transitions so far: the number of the newest."""
    reply = w.centre.call("GET", "/v1/tenants/acme/alerts/history?limit=1")
    items = reply.body["items"] if reply.status == 200 else []
    return int(items[0]["id"].rpartition("-")[2]) if items else 0
