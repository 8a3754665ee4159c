"""What ``/api/status`` and ``plc-edge status --json`` say, and what is wrong in plain words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.metrics import words
from services.metrics.processes import Entry, ProcessTable
from services.metrics.site import Group, Plc, Site
from services.runtime.clock import now_ms

# A PLC counts as read when one of its groups was, within this (CONTRACT §6).
READY_SCANS, READY_MIN_S = 3, 5.0
# An output's rate is of the last so many seconds.
RATE_WINDOW_S = 10
STORE_NEARLY_FULL = 0.8
OLDEST_WARNING_S = 60.0
DROPS_SHOWN_S = 600.0
CERTIFICATE_WARNING_S = 21 * 86_400
# Before this a process that has not spoken is starting, not missing.
GRACE_S = 5.0
# A PLC's bad fields are named up to so many; the panel shows them all.
BAD_SHOWN = 5


@dataclass(slots=True)
class _Seen:
    """Since when a problem is there, for problems that do not say so themselves."""

    since_ms: int
    round: int


# Messages of an output that wait, the age of the oldest, and what was refused for ever: in the
# store, or, where it has `reduce:`, in a queue of its own.
STORED = (
    "plc_edge_store_pending",
    "plc_edge_store_oldest_pending_seconds",
    "plc_edge_store_dead_letters",
)
REDUCED = (
    "plc_edge_reduced_pending",
    "plc_edge_reduced_oldest_pending_seconds",
    "plc_edge_reduced_dead_letters",
)


class Status:
    """Makes the document. Keeps only what rates and "since" need; callers hold ``site.lock``."""

    def __init__(self, site: Site, table: ProcessTable) -> None:
        self.site = site
        self.table = table
        self._published: dict[str, deque[tuple[float, float]]] = {}
        self._reads: dict[str, deque[tuple[float, float]]] = {}
        self._dropped: tuple[float, float | None] = (0.0, None)
        """(count so far, monotonic s of its last rise)"""
        self._since: dict[tuple[str, str], _Seen] = {}
        self._round = 0

    # -- rates ---------------------------------------------------------------------------

    def tick(self) -> None:
        """Takes the counters that rates are made of; once a second."""
        now_s = self.site.clock()
        for output in self.site.outputs:
            history = self._published.setdefault(output["name"], deque(maxlen=RATE_WINDOW_S + 1))
            sent = self.site.aggregate.value(
                "plc_edge_published_total", output=output["name"], result="ok"
            )
            history.append((now_s, sent or 0.0))
        for plc in self.site.plcs:
            history = self._reads.setdefault(plc, deque(maxlen=RATE_WINDOW_S + 1))
            read = self.site.aggregate.value("plc_edge_read_requests_total", plc=plc, result="ok")
            history.append((now_s, read or 0.0))
        dropped = self._lost_rows()
        if dropped > self._dropped[0]:
            self._dropped = (dropped, now_s)

    @staticmethod
    def _rate(history: deque[tuple[float, float]] | None) -> float:
        if not history or len(history) < 2:
            return 0.0
        (then_s, before), (now_s, after) = history[0], history[-1]
        return max(0.0, (after - before) / (now_s - then_s)) if now_s > then_s else 0.0

    def _lost_rows(self) -> float:
        """Rows that the outbox has dropped, but for what an operator gave up on purpose and what a
        quota withheld.
        """
        return sum(
            float(value)
            for name, labels, _, value in self.site.aggregate.items()
            if name == "plc_edge_store_dropped_total"
            and not {("reason", "purged"), ("reason", "quota")} & set(labels)
            and isinstance(value, float)
        )

    # -- the document --------------------------------------------------------------------

    def document(self, groups: bool = True) -> dict[str, Any]:
        """All of it, plain JSON types; ages in s, times in Unix ms. ``groups=False``: shorter."""
        now_s = self.site.clock()
        self._round += 1
        plcs = [self.plc(p, now_s, groups) for p in self.site.plcs.values()]
        outputs = [self._output(o, now_s) for o in self.site.outputs]
        mirrors = [self._mirror(m) for m in self.site.mirrors]
        processes = [self._process(e) for e in self.table.entries.values()]
        store = self._store()
        problems = self._problems(plcs, outputs, mirrors, processes, store)
        severities = {p["severity"] for p in problems}
        overall = "error" if "error" in severities else "warning" if severities else "ok"
        if overall == "ok" and any(p["status"] == "starting" for p in plcs):
            overall = "starting"
        self._since = {k: s for k, s in self._since.items() if s.round == self._round}
        return {
            "v": 1,
            "site": self.site.name,
            "ts": now_ms(),
            "status": overall,
            "problems": problems,
            "plcs": plcs,
            "outputs": outputs,
            "store": store,
            "mirrors": mirrors,
            "processes": processes,
            "fleet": self._fleet(),
            "supervisor": {"reachable": self.table.reachable, "error": self.table.error},
        }

    def plc(self, plc: Plc, now_s: float, groups: bool) -> dict[str, Any]:
        """One PLC's row."""
        beat, age_s = plc.beat, plc.read_age_s(now_s)
        status = plc.status(self.site.aggregate, now_s)
        if status == "no_reader" and beat is None and now_s - self.site.started_s < GRACE_S:
            status = "starting"
        failure = beat.failure if beat is not None else None
        bad = [name for g in plc.groups.values() for name in g.bad()]
        row: dict[str, Any] = {
            "id": plc.id,
            "locatario": plc.locatario,
            "ip": plc.host,
            "status": status,
            "since": plc.since_ms or None,
            "scan_ms": round(plc.scan_ms, 2),
            "latency_ms": round(plc.latency_ms, 2),
            "reads_per_s": round(self._rate(self._reads.get(plc.id)), 1),
            "reads_ok": beat.reads_ok if beat else 0,
            "reads_failed": beat.reads_failed if beat else 0,
            "read_age_s": None if age_s is None else round(age_s, 1),
            "fresh": self._fresh(plc, now_s),
            "bad_fields": len(bad),
            "bad_names": sorted({name.rpartition("/")[2] for name in bad})[:BAD_SHOWN],
            "failure": failure,
        }
        if groups:
            row["groups"] = [self.group(g, now_s) for g in plc.groups.values()]
        return row

    @staticmethod
    def group(group: Group, now_s: float) -> dict[str, Any]:
        """One group's row."""
        return {
            "name": group.name,
            "scan_s": group.scan_s,
            "ts": group.ts_ms or None,
            "age_s": None if group.at_s is None else round(now_s - group.at_s, 2),
            "duration_ms": round(group.duration_ms, 2),
            "latency_ms": round(group.latency_ms, 2),
            "quality": group.quality,
            "bad": group.bad(),
        }

    @staticmethod
    def _fresh(plc: Plc, now_s: float) -> bool:
        age_s = plc.read_age_s(now_s)
        return age_s is not None and age_s <= max(READY_SCANS * plc.min_scan_s, READY_MIN_S)

    def _state(self, process: str) -> tuple[str, dict[str, Any]]:
        state, _ = self.site.states.get(process, (None, 0.0))
        return ("unknown", {}) if state is None else (state.status, state.fields)

    def _output(self, output: dict[str, Any], now_s: float) -> dict[str, Any]:
        name, value = output["name"], self.site.aggregate.value
        status, fields = self._state(output["process"])
        is_reduced = value(REDUCED[0], output=name) is not None
        pending, oldest_s, letters = (
            value(metric, output=name) for metric in (REDUCED if is_reduced else STORED)
        )
        return {
            "name": name,
            "type": output.get("type", ""),
            "target": fields.get("target") or output.get("target") or "",
            "status": status,
            "pending": None if pending is None else int(pending),
            "oldest_age_s": None if oldest_s is None else round(oldest_s, 1),
            "rate_per_s": round(self._rate(self._published.get(name)), 1),
            "published": int(value("plc_edge_published_total", output=name, result="ok") or 0),
            "dead_letters": int(letters or 0),
            "error": _error(status, fields),
        }

    def _mirror(self, mirror: dict[str, Any]) -> dict[str, Any]:
        name, value = mirror["name"], self.site.aggregate.value
        status, fields = self._state(f"mirror-{name}")
        if mirror.get("enabled") is False:
            status = "disabled"
        writes = value("plc_edge_mirror_writes_total", mirror=name, result="ok")
        return {
            "name": name,
            "source": mirror.get("source") or fields.get("source"),
            "target": mirror.get("target") or fields.get("target"),
            "status": status,
            "writes": int(writes or 0),
            # From its State frame, once a second; null until there is one.
            "lag_ms": fields.get("lag_ms"),
            "last_write_ms": fields.get("last_write_ms") or None,
            "bytes": int(fields.get("bytes", 0)),
            "bytes_per_s": fields.get("bytes_per_s"),
            "mismatches": int(fields.get("mismatches", 0)),
            "refusals": int(fields.get("refusals", 0)),
            "error": _error(status, fields),
        }

    def _store(self) -> dict[str, Any]:
        value = self.site.aggregate.value
        status, fields = self._state("store_forward")
        used = value("plc_edge_store_bytes")
        limit = self.site.config["store_max_bytes"]
        fell_s = self._dropped[1]
        recent = fell_s is not None and self.site.clock() - fell_s < DROPS_SHOWN_S
        return {
            "status": status,
            "bytes": None if used is None else int(used),
            "max_bytes": None if not limit else int(limit),
            "fill": round(used / limit, 4) if used is not None and limit else None,
            "dropped": int(self._dropped[0]),
            "dropping": recent,
            "quotas": fields.get("quotas", {}),
            "error": _error(status, fields),
        }

    def _fleet(self) -> dict[str, Any] | None:
        """The control plane of this box; None where it has none."""
        if "fleet" not in self.site.process_names:
            return None
        status, fields = self._state("fleet")
        keys = ("state", "version", "running", "code", "message")
        return {"status": status, **{k: fields.get(k) for k in keys}}

    def _process(self, entry: Entry) -> dict[str, Any]:
        status, _ = self._state(entry.name)
        return {
            "name": entry.name,
            "state": entry.state,
            "up": entry.state == "RUNNING",
            "pid": entry.pid or None,
            "uptime_s": entry.uptime_s,
            "restarts": entry.restarts,
            "flapping": entry.flapping,
            "cpu_percent": round(entry.cpu_percent, 1),
            "rss_bytes": entry.rss_bytes,
            "fds": entry.fds,
            "status": status,
            "why": entry.why,
        }

    # -- what is wrong -------------------------------------------------------------------

    def _problems(
        self,
        plcs: list[dict[str, Any]],
        outputs: list[dict[str, Any]],
        mirrors: list[dict[str, Any]],
        processes: list[dict[str, Any]],
        store: dict[str, Any],
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def add(
            severity: str,
            code: str,
            subject: str,
            since: int | None = None,
            say: str = "",
            **params: Any,
        ) -> None:
            seen = self._since.setdefault((code, subject), _Seen(now_ms(), 0))
            seen.round = self._round
            params["subject"] = subject
            text, fix = words.problem(code, params, say)
            found.append(
                {
                    "severity": severity,
                    "code": code,
                    "subject": subject,
                    "params": params,
                    "text": text,
                    "fix": fix,
                    "since": since or seen.since_ms,
                }
            )

        _process_problems(processes, self.table, add)
        down = {p["name"] for p in processes if not p["up"] and self.table.reachable}
        for plc in plcs:
            if f"reader-{plc['id']}" not in down:
                _plc_problems(plc, add)
        processes_of = {o["name"]: o["process"] for o in self.site.outputs}
        for output in outputs:
            name, error = output["name"], output["error"] or {}
            if output["status"] in ("down", "degraded") and processes_of[name] not in down:
                severity = "error" if output["status"] == "down" else "warning"
                code = _known(f"output_{error.get('code', '')}", "output_down")
                add(
                    severity,
                    code,
                    name,
                    error.get("since"),
                    str(error.get("message", "")),
                    message=error.get("message", ""),
                    target=output["target"],
                )
            if output["dead_letters"]:
                add("warning", "output_dead_letters", name, count=output["dead_letters"])
            if error:
                continue
            if (output["oldest_age_s"] or 0) > OLDEST_WARNING_S:
                add(
                    "warning",
                    "output_late",
                    name,
                    pending=output["pending"],
                    age=int(output["oldest_age_s"]),
                )
        if store["status"] in ("down", "degraded") and "store_forward" not in down:
            error = store["error"] or {}
            message = error.get("message", "")
            code = _known(f"store_{error.get('code', '')}", "store_degraded")
            severity = "error" if store["status"] == "down" else "warning"
            add(severity, code, "store_forward", say=message, message=message)
        if (store["fill"] or 0) >= STORE_NEARLY_FULL:
            add("warning", "store_filling", "store_forward", percent=int(100 * store["fill"]))
        if store["dropping"]:
            add("error", "store_dropping", "store_forward", count=store["dropped"])
        for tenant, own in store["quotas"].items():
            if own["thinned"]:
                add("warning", "over_quota", tenant, limit=own["points_per_min"])
        for mirror in mirrors:
            name, error = mirror["name"], mirror["error"] or {}
            if mirror["status"] in ("down", "degraded") and f"mirror-{name}" not in down:
                severity = "error" if mirror["status"] == "down" else "warning"
                add(
                    severity,
                    "mirror_down",
                    name,
                    error.get("since"),
                    str(error.get("message", "")),
                    message=error.get("message", ""),
                )
        fleet = self._fleet()
        if fleet and fleet["status"] == "degraded":
            # Without the centre, and with a configuration refused, the box goes on as it is.
            message = fleet["message"] or ""
            code = _known(f"fleet_{fleet['code']}", "fleet_centre_away")
            add("warning", code, "fleet", say=message, message=message, version=fleet["version"])
        if not self.site.clock_is_right:
            add("warning", "clock_unsynchronised", self.site.name)
        self._certificate_problems(add)
        found.sort(key=lambda p: (p["severity"] != "error", p["since"]))
        return found

    def _certificate_problems(self, add: Callable[..., None]) -> None:
        for (process, file), end_s in self.site.certificates.items():
            left_s = end_s - now_ms() / 1_000
            subject = f"{process}: {file}"
            if left_s < 0:
                add("error", "certificate_expired", subject)
            elif left_s < CERTIFICATE_WARNING_S:
                add("warning", "certificate_expiring", subject, days=int(left_s / 86_400))

    # -- readiness -----------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Why /readyz says 503: empty when every process is up and every PLC has been read."""
        now_s = self.site.clock()
        reasons: list[str] = []
        if not self.table.reachable:
            reasons.append(self.table.error or "supervisord has not been asked yet")
        else:
            reasons += [
                f"process {e.name} is {e.state}"
                for e in self.table.entries.values()
                if e.state != "RUNNING"
            ]
        for plc in self.site.plcs.values():
            if not self._fresh(plc, now_s):
                age_s = plc.read_age_s(now_s)
                read = "never read" if age_s is None else f"last read {age_s:.0f} s ago"
                reasons.append(f"PLC {plc.id}: {read}")
        return reasons


def _process_problems(
    processes: list[dict[str, Any]], table: ProcessTable, add: Callable[..., None]
) -> None:
    if table.reachable is False:
        add("error", "supervisor_unreachable", "supervisord", message=table.error)
        return
    for process in processes:
        if process["state"] == "UNKNOWN":
            continue
        if not process["up"] and process["state"] != "STARTING":
            if process["why"].startswith("its configuration"):
                add("error", "process_config", process["name"])
            else:
                add(
                    "error",
                    "process_down",
                    process["name"],
                    state=process["state"],
                    why=process["why"],
                )
        elif process["flapping"]:
            add("error", "process_flapping", process["name"], restarts=process["restarts"])


def _plc_problems(plc: dict[str, Any], add: Callable[..., None]) -> None:
    status, failure = plc["status"], plc["failure"] or {}
    params = {"host": plc["ip"], "message": failure.get("message", "")}
    code = str(failure.get("code", ""))
    if status == "no_reader":
        add("error", "plc_no_reader", plc["id"], **params)
    elif status in ("offline", "degraded") and not (code == "fields_refused" and plc["bad_fields"]):
        severity = "error" if status == "offline" else "warning"
        default = "plc_offline" if status == "offline" else "plc_degraded"
        add(
            severity,
            _known(f"plc_{code}", default),
            plc["id"],
            failure.get("since"),
            params["message"],
            **params,
        )
    elif status == "online" and not plc["fresh"]:
        add("error", "plc_stale", plc["id"], age=int(plc["read_age_s"] or 0), **params)
    # What makes the whole PLC unreadable is said above, once.
    if plc["bad_fields"] and (status == "online" or code == "fields_refused"):
        add(
            "warning",
            "fields_bad",
            plc["id"],
            count=plc["bad_fields"],
            names=", ".join(plc["bad_names"]),
            **params,
        )


def _known(code: str, default: str) -> str:
    return code if words.has_problem(code) else default


def _error(status: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The last error of an output, mirror or store, as its State frame tells it."""
    if fields.get("disk_full"):
        return {"code": "disk_full", "message": str(fields["disk_full"]), "since": None}
    if status not in ("down", "degraded"):
        return None
    message = fields.get("message") or fields.get("why") or ""
    return {
        "code": str(fields.get("code", "")),
        "message": str(message),
        "since": fields.get("since"),
    }
