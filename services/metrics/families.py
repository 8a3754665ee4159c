"""Every sample of one scrape: what the processes count, and what is known of them from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Protocol

from services.metrics.aggregate import Aggregate
from services.metrics.exposition import Item
from services.metrics.processes import ProcessTable
from services.metrics.site import Plc, Site


class Listeners(Protocol):
    """What is counted of the stream."""

    @property
    def clients(self) -> Sized:
        """Who listens now."""

    dropped: int


# Said here, from heartbeats and supervisord, whatever a process may say of itself: one that is
# dead says nothing.
_OWN = {"plc_edge_plc_up", "plc_edge_process_up"}


def families(site: Site, table: ProcessTable, hub: Listeners) -> list[Item]:
    """All of them, unsorted; the caller holds ``site.lock``."""
    items = [i for i in site.aggregate.items() if i[0] not in _OWN]
    for plc in site.plcs.values():
        items += _plc(plc, site.aggregate, site.clock())
    for entry in table.entries.values():
        labels = (("process", entry.name),)
        up = float(entry.state == "RUNNING")
        items.append(("plc_edge_process_up", labels, "gauge", up))
        restarts = float(entry.restarts)
        items.append(("plc_edge_process_restarts_total", labels, "counter", restarts))
        items.append(("plc_edge_process_cpu_seconds_total", labels, "counter", entry.cpu_s))
        if not entry.pid:
            continue
        rss_bytes = float(entry.rss_bytes)
        items.append(("plc_edge_process_resident_memory_bytes", labels, "gauge", rss_bytes))
        items.append(("plc_edge_process_open_fds", labels, "gauge", float(entry.fds)))
        started_s = float(entry.start_s)
        items.append(("plc_edge_process_start_time_seconds", labels, "gauge", started_s))
    items.append(("plc_edge_supervisor_up", (), "gauge", float(bool(table.reachable))))
    items.append(("plc_edge_clock_synchronised", (), "gauge", float(site.clock_is_right)))
    for (process, level), n in site.event_counts.items():
        event_labels = (("level", level), ("process", process))
        items.append(("plc_edge_events_total", event_labels, "counter", float(n)))
    for (process, file), end_s in site.certificates.items():
        cert_labels = (("file", file), ("process", process))
        items.append(("plc_edge_certificate_expiry_timestamp_seconds", cert_labels, "gauge", end_s))
    items += _reasons("plc_edge_metrics_refused_total", site.aggregate.refused)
    items.append(("plc_edge_live_stale_total", (), "counter", float(site.stale)))
    items.append(("plc_edge_stream_clients", (), "gauge", float(len(hub.clients))))
    items.append(("plc_edge_stream_clients_dropped_total", (), "counter", float(hub.dropped)))
    return items


def _plc(plc: Plc, aggregate: Aggregate, now_s: float) -> list[Item]:
    labels = (("plc", plc.id),)
    up = plc.answers(aggregate, now_s)
    items: list[Item] = [("plc_edge_plc_up", labels, "gauge", float(up))]
    last_ms = max((g.good_ts_ms for g in plc.groups.values()), default=0)
    if last_ms:
        items.append(("plc_edge_plc_last_read_timestamp_seconds", labels, "gauge", last_ms / 1_000))
    return items


def _reasons(name: str, counts: Mapping[str, int]) -> list[Item]:
    return [(name, (("reason", why),), "counter", float(n)) for why, n in counts.items()]
