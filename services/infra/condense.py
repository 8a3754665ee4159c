"""processo -> processo_1m -> processo_1h in VictoriaMetrics: what the Flux tasks do in InfluxDB.

Recording rules (vmalert) look at the present once; what came late must be computed again, and
VictoriaMetrics cannot replace a point: of two with the same time it keeps one as it likes. But of
the points of one minute it keeps the last, in every answer and on disk
(``-dedup.minScrapeInterval=1m``). So the points of a window lie within the second before its start,
each revision 1 ms after the one before it, and the newest holds.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from services.infra.database import Step
from services.runtime.clock import now_ms
from services.runtime.errors import ConfigError, Problem, Unavailable
from services.runtime.log import Log

SECOND_MS = 1_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# A window's points lie in the second before its start: a thousand revisions.
ROOM_MS = 1_000
# As the Flux tasks: ten minutes and two hours back; 15 s, 2 min and 2 h 20 min after the window.
MINUTES_BACK, HOURS_BACK = 10, 2
MINUTES_LATER_MS, HOURS_LATER_MS = 15 * SECOND_MS, 2 * MINUTE_MS
NIGHT_LATER_MS = 140 * MINUTE_MS
_ANSWER_S = 120.0
_NAME = "nome"
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant: bucket -> URL of the store that keeps it."""

    id: str
    raw_days: int
    urls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rollup:
    """Windows of ``span_ms`` of one bucket from points of another."""

    source: str
    target: str
    span_ms: int
    at_ms: int
    """When a window is looked back upon, after its start."""
    asked: Sequence[tuple[str, str]]
    """(end of the new name, MetricsQL)."""


def _named(rollup: str) -> str:
    """With the name as a label, which operators do not drop."""
    return f'label_move({rollup} keep_metric_names, "__name__", "{_NAME}")'


def _fields(names: Sequence[str]) -> str:
    """A pattern of these fields, of any measurement, as a string of MetricsQL holds it."""
    return f"[^:]+:({'|'.join(map(re.escape, names))})".replace("\\", "\\\\")


def minutes(booleans: Sequence[str], counters: Sequence[str]) -> Rollup:
    """See infra/templates/influxdb/minuto.flux.j2."""
    others = f', __name__!~"{_fields(booleans)}"' if booleans else ""
    numbers = f'{{__name__=~"[^:]+:.+"{others}}}'
    asked = [
        (suffix, _named(f"{how}_over_time({numbers}[1m])"))
        for suffix, how in (("_mean", "avg"), ("_min", "min"), ("_max", "max"), ("_last", "last"))
    ]
    if counters:
        # What was added since the point before, which may be ten minutes old.
        some = f'{{__name__=~"{_fields(counters)}"}}'
        all_of_it = _named(f"increase_prometheus({some}[11m])")
        before = _named(f"increase_prometheus({some}[10m] offset 1m)")
        said = _named(f"last_over_time({some}[1m])")
        asked.append(("_inc", f"({all_of_it} - ({before} or 0 * {all_of_it})) and {said}"))
    if booleans:
        # The share of the time: what held at the end of each 5 s. Of minutes with a message only.
        some = f'{{__name__=~"{_fields(booleans)}"}}'
        grid = f"(last_over_time({some}[10m] offset -4999ms) keep_metric_names)[1m:5s]"
        said = _named(f"last_over_time({some}[1m])")
        asked.append(("_duty", f"{_named(f'avg_over_time({grid})')} and {said}"))
    # A window of MetricsQL holds its end and not its start: 1 ms before the end it is Flux's.
    return Rollup("processo", "processo_1m", MINUTE_MS, MINUTE_MS - 1, asked)


def hours() -> Rollup:
    """See infra/templates/influxdb/hora.flux.j2."""
    asked = [
        ("", _named(f'{how}_over_time({{__name__=~".+{ends}"}}[1h])'))
        for ends, how in (
            ("_(mean|duty)", "avg"), ("_min", "min"), ("_max", "max"), ("_last", "last"),
            ("_inc", "sum"),
        )
    ]  # fmt: skip
    # Minutes lie up to ROOM_MS before their start.
    return Rollup("processo_1m", "processo_1h", HOUR_MS, HOUR_MS - ROOM_MS - 1, asked)


class Condenser:
    """All tenants."""

    def __init__(self, file: Path) -> None:
        told = _read(file)
        urls = {
            name: os.environ.get(variable, f"http://{name}:8428")
            for name, variable in told["stores"].items()
        }
        self.tenants = [
            Tenant(t["id"], t["raw_days"], {b: urls[name] for b, name in t["buckets"].items()})
            for t in told["tenants"]
        ]
        self._minutes = minutes(told["booleans"], told["counters"])
        self._hours = hours()
        self._pool = urllib3.PoolManager(
            timeout=_ANSWER_S, retries=urllib3.Retry(3, allowed_methods=None)
        )

    def last_minutes(self, now: int, since: int | None = None) -> int:
        """The last ten whole ones, and those since ``since``; how many points changed."""
        end = now // MINUTE_MS * MINUTE_MS
        start = min(end - MINUTES_BACK * MINUTE_MS, end if since is None else since)
        # No longer at once than the night does.
        firsts = range(start, end, HOUR_MS)
        return sum(
            self.condense(tenant, self._minutes, first, min(first + HOUR_MS, end))
            for tenant in self.tenants
            for first in firsts
        )

    def last_hours(self, now: int) -> int:
        """The last two whole ones; how many points changed."""
        end = now // HOUR_MS * HOUR_MS
        start = end - HOURS_BACK * HOUR_MS
        return sum(self.condense(tenant, self._hours, start, end) for tenant in self.tenants)

    def night(self, now: int) -> Iterator[int]:
        """Every whole day that late points may still come for, a little at each step; how many
        points changed in it.
        """
        end = now // DAY_MS * DAY_MS
        for tenant in self.tenants:
            for first in range(end - tenant.raw_days * DAY_MS, end, HOUR_MS):
                yield self.condense(tenant, self._minutes, first, first + HOUR_MS)
            # What was just written is read now, not within the second.
            self._post(tenant.urls[self._hours.source], "/internal/force_flush")
            for first in range(end - tenant.raw_days * DAY_MS, end, DAY_MS):
                yield self.condense(tenant, self._hours, first, first + DAY_MS)

    def condense(self, tenant: Tenant, rollup: Rollup, start: int, end: int) -> int:
        """The windows from ``start`` to before ``end``; how many points are new or another."""
        made = {
            (key, window): value
            for suffix, query in rollup.asked
            for key, window, value in self._ask(tenant, rollup, suffix, query, start, end)
        }
        if not made:
            return 0
        kept = self._kept(tenant, rollup, start, end)
        lines: dict[Key, tuple[list[float], list[int]]] = {}
        for (key, window), value in made.items():
            stamp, known = kept.get((key, window), (window - ROOM_MS, None))
            # A store rounds to some 15 digits.
            if known is None or not math.isclose(value, known, rel_tol=1e-12):
                values, stamps = lines.setdefault(key, ([], []))
                values.append(value)
                stamps.append(min(stamp + 1, window))
        body = "\n".join(
            json.dumps({"metric": dict(key), "values": values, "timestamps": stamps})
            for key, (values, stamps) in lines.items()
        )
        if lines:
            self._post(tenant.urls[rollup.target], "/api/v1/import", body.encode())
        return sum(len(stamps) for _, stamps in lines.values())

    def _ask(
        self, tenant: Tenant, rollup: Rollup, suffix: str, query: str, start: int, end: int
    ) -> Iterator[tuple[Key, int, float]]:
        """(series, start of the window, value)."""
        form = [
            ("query", query),
            ("start", _seconds(start + rollup.at_ms)),
            ("end", _seconds(end - rollup.span_ms + rollup.at_ms)),
            ("step", _seconds(rollup.span_ms)),
            ("nocache", "1"),
            ("extra_label", f"locatario_id={tenant.id}"),
            ("extra_label", f"bucket={rollup.source}"),
        ]
        answer = json.loads(
            self._post(tenant.urls[rollup.source], "/api/v1/query_range", fields=form)
        )
        for series in answer["data"]["result"]:
            labels = series["metric"]
            name = labels.pop(_NAME) + suffix
            key = _key({**labels, "__name__": name, "bucket": rollup.target})
            for at_s, value in series["values"]:
                yield key, round(at_s * SECOND_MS) - rollup.at_ms, float(value)

    def _kept(
        self, tenant: Tenant, rollup: Rollup, start: int, end: int
    ) -> dict[tuple[Key, int], tuple[int, float]]:
        """(series, start of the window) -> (time, value) of what the target holds."""
        selector = f'{{locatario_id="{tenant.id}", bucket="{rollup.target}"}}'
        form = [
            ("match[]", selector),
            ("start", _seconds(start - ROOM_MS)),
            ("end", _seconds(end - rollup.span_ms)),
        ]
        text = self._post(tenant.urls[rollup.target], "/api/v1/export", fields=form)
        found = {}
        for line in text.splitlines():
            series = json.loads(line)
            key = _key(series["metric"])
            for stamp, value in zip(series["timestamps"], series["values"], strict=True):
                window = -(-stamp // rollup.span_ms) * rollup.span_ms
                found[key, window] = (stamp, value)
        return found

    def _post(
        self,
        url: str,
        path: str,
        body: bytes | None = None,
        fields: Sequence[tuple[str, str]] | None = None,
    ) -> str:
        try:
            if fields is None:
                response = self._pool.request("POST", url + path, body=body)
            else:
                response = self._pool.request(
                    "POST", url + path, fields=fields, encode_multipart=False
                )
        except urllib3.exceptions.HTTPError as e:
            message = f"{url} does not answer ({e}); VM_…_URL in the environment says where it is"
            raise Unavailable("store_away", message) from None
        text = response.data.decode()
        if response.status >= 300:
            message = f"{url}{path} answers {response.status}: {text.strip()[:300]}"
            raise Unavailable("store_refuses", message)
        return text


def _read(file: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        hint = "give victoriametrics/condense.json of `infra render --database victoriametrics`"
        raise ConfigError([Problem(str(file), "", f"cannot be read: {e}", hint=hint)]) from None
    return told


def _seconds(ms: int) -> str:
    return f"{ms // SECOND_MS}.{ms % SECOND_MS:03d}"


def _key(labels: Mapping[str, Any]) -> Key:
    return tuple(sorted(labels.items()))


def run(file: Path, once: Sequence[Step]) -> None:
    """``once``: only these steps. Else for ever; a store that is away is tried again."""
    condenser, log = Condenser(file), Log("condense")
    for step in once:
        changed = _once(condenser, step, now_ms())
        log.info("condensed", step=step, points=changed)
    if not once:
        _for_ever(condenser, log)


def _once(condenser: Condenser, step: Step, now: int) -> int:
    if step is Step.MINUTES:
        return condenser.last_minutes(now)
    return condenser.last_hours(now) if step is Step.HOURS else sum(condenser.night(now))


def _for_ever(condenser: Condenser, log: Log) -> None:
    minute = hour = 0
    since: int | None = None
    day = (now_ms() - NIGHT_LATER_MS) // DAY_MS
    night: Iterator[int] = iter(())
    well = True
    while True:
        now = now_ms()
        try:
            if minute != (minute := (now - MINUTES_LATER_MS) // MINUTE_MS):
                condenser.last_minutes(now, since)
                since = now // MINUTE_MS * MINUTE_MS
            elif hour != (hour := (now - HOURS_LATER_MS) // HOUR_MS):
                condenser.last_hours(now)
            elif day != (day := (now - NIGHT_LATER_MS) // DAY_MS):
                night = condenser.night(now)
            elif next(night, None) is None:
                time.sleep(1)
            if not well:
                log.info("condenses again")
            well = True
        except Unavailable as e:
            if well:
                log.warning("cannot condense", error=str(e))
            well = False
            # The steps of this moment come again: with the next minute, hour, night.
            time.sleep(5)
