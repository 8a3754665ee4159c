"""A message in the form in which Alertmanager tells its webhook receivers, version 4
(https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from services.alerts.core.digest import Body, transitions
from services.alerts.core.transition import FIRING

# Go's zero time: it has not ended.
NOT_ENDED = "0001-01-01T00:00:00Z"
_LABELS = ("severity", "locatario_id", "site", "plc_id", "group", "machine", "field")
_ANNOTATIONS = ("value", "reason", "escalation")
_FNV_OFFSET, _FNV_PRIME = 14695981039346656037, 1099511628211

Labels = dict[str, str]


def payload(body: Body, receiver: str, external_url: str) -> dict[str, Any]:
    """``body``: a transition with its id, or a digest of several. Of an alarm that it tells more
    than once, the last.
    """
    told = list(transitions(body))
    alerts = list({a["fingerprint"]: a for a in map(_alert, told)}.values())
    common = _common([a["labels"] for a in alerts])
    group = {k: common[k] for k in ("alertname",) if k in common}
    shown = ", ".join(f'{k}="{v}"' for k, v in group.items())
    return {
        "receiver": receiver,
        "status": "firing" if any(a["status"] == "firing" for a in alerts) else "resolved",
        "alerts": alerts,
        "groupLabels": group,
        "commonLabels": common,
        "commonAnnotations": _common([a["annotations"] for a in alerts]),
        "externalURL": external_url,
        "version": "4",
        "groupKey": f"{{}}:{{{shown}}}",
        "truncatedAlerts": body.get("count", 1) - len(told),
    }


def _alert(t: Mapping[str, Any]) -> dict[str, Any]:
    fires = t["to"] == FIRING
    labels = {"alertname": t["rule"]} | {k: str(t[k]) for k in _LABELS if t.get(k)}
    notes = {k: str(t[k]) for k in _ANNOTATIONS if t.get(k) is not None}
    began = t["began"] if t.get("began") is not None else t["ts"]
    return {
        "status": "firing" if fires else "resolved",
        "labels": labels,
        "annotations": {"summary": t["text"], **notes},
        "startsAt": _time(began),
        "endsAt": NOT_ENDED if fires else _time(t["ts"]),
        "generatorURL": "",
        "fingerprint": fingerprint(labels),
    }


def fingerprint(labels: Labels) -> str:
    """As Prometheus makes it: FNV-1a of the sorted labels, each part closed by 0xFF."""
    data = b"".join(part.encode() + b"\xff" for kv in sorted(labels.items()) for part in kv)
    made = reduce(lambda h, byte: (h ^ byte) * _FNV_PRIME % 2**64, data, _FNV_OFFSET)
    return f"{made:016x}"


def _common(all_of: Sequence[Labels]) -> Labels:
    first, *others = all_of
    return {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}


def _time(ms: int) -> str:
    return (
        datetime.fromtimestamp(ms / 1_000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
