"""The box itself: directories, disk, clock, port, processes left over."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bus import topology
from services.cli.doctor_finding import Finding
from services.cli.doctor_net import file_expiry
from services.runtime import panel, process_table, render
from services.runtime.clock import is_synchronised, is_trusted
from services.runtime.consumers import consumers
from services.runtime.site import Site

# Below this share of free inodes nothing can be created soon, however many bytes are free.
MIN_FREE_INODES = 1_000
# A file from the future: the clock has gone back since it was written.
FUTURE_S = 60.0


def check(site: Site) -> Iterator[Finding]:
    """All findings about this machine."""
    runtime = site.config.paths.runtime.absolute()
    yield directory("runtime directory", runtime, private=True)
    yield socket_paths(site, runtime)
    yield directory("state directory", site.config.paths.state.absolute(), private=False)
    yield disk(site)
    yield clock(site.config.paths.state.absolute(), site.config.clock_sync)
    table = processes(site)
    yield from table
    yield from stale(site, runtime)
    yield port(site, runtime)
    if site.config.metrics.tls is not None:
        folder = site.config.file.parent
        yield file_expiry(
            "metrics", "the panel's certificate", folder / site.config.metrics.tls.cert
        )


def directory(what: str, path: Path, private: bool) -> Finding:
    """Whether the services can write there and nobody else can."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        owner = there.stat()
        return Finding(
            "error",
            what,
            "permission",
            f"{there} is not writable for this user (uid {os.geteuid()}; it belongs to uid"
            f" {owner.st_uid}, mode {stat.S_IMODE(owner.st_mode):o})",
            f"run as the plc-edge user, or `chown plc-edge: {there}` and `chmod 700 {there}`",
        )
    if there != path:
        return Finding("ok", what, "directory", f"{path} will be made at the first start")
    if not path.is_dir():
        return Finding("error", what, "not_a_directory", f"{path} is a file", f"remove {path}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if private and mode & 0o077:
        return Finding(
            "error",
            what,
            "permission",
            f"{path} is open to others (mode {mode:o}): whoever can reach its sockets can send"
            " false data and stop processes",
            f"`chmod 700 {path}`",
        )
    return Finding("ok", what, "directory", f"{path} is writable")


def socket_paths(site: Site, runtime: Path) -> Finding:
    """Whether the longest socket name still fits."""
    items = {
        "plc": [p.id for p in site.config.plcs],
        "consumer": [c["name"] for c in consumers(site.config)],
    }
    for wire in topology.WIRES.values():
        for item in items[wire.per] if wire.per else [""]:
            try:
                topology.endpoint(runtime, wire.name, item)
            except ValueError as e:
                return Finding(
                    "error",
                    "runtime directory",
                    "path_too_long",
                    str(e),
                    "set paths.runtime to a short path, e.g. /run/plc-edge",
                )
    return Finding("ok", "runtime directory", "sockets", "socket paths are short enough")


def disk(site: Site) -> Finding:
    """Room for what the outbox may still grow to."""
    state, store = site.config.paths.state.absolute(), site.config.store
    there = state
    while not there.exists():
        there = there.parent
    free_bytes = shutil.disk_usage(there).free
    used_bytes = (
        sum(f.stat().st_size for f in state.rglob("*") if f.is_file()) if state.exists() else 0
    )
    free, text = _mib(free_bytes), f"{_mib(free_bytes)} free at {there}"
    fix = "delete or move what is not needed (`du -xh / | sort -h | tail`), or enlarge the disk"
    if free_bytes < store.min_free:
        return Finding(
            "error",
            "disk",
            "disk_full",
            f"only {free} free at {there}: less than store.min_free ({_mib(store.min_free)}), so"
            " the outbox drops its oldest data",
            fix,
        )
    files = os.statvfs(there)
    if files.f_files and files.f_favail < MIN_FREE_INODES:
        return Finding(
            "error",
            "disk",
            "inodes",
            f"only {files.f_favail} files can still be made at {there}",
            "delete directories with very many small files",
        )
    needed_bytes = max(0, store.max_size - used_bytes) + store.min_free
    if free_bytes < needed_bytes:
        return Finding(
            "warning",
            "disk",
            "disk_small",
            f"{text}, but the outbox may grow by {_mib(needed_bytes - store.min_free)} and leaves"
            f" {_mib(store.min_free)} to others",
            f"lower store.max_size, or {fix}",
        )
    return Finding("ok", "disk", "disk", text)


def _mib(size_bytes: int) -> str:
    return (
        f"{size_bytes / 2**20:,.0f} MiB" if size_bytes < 2**33 else f"{size_bytes / 2**30:,.0f} GiB"
    )


def clock(state: Path, clock_sync: str) -> Finding:
    """Whether this box knows what time it is, and what values are while it does not."""
    fix = "set up NTP (`timedatectl set-ntp true`, chrony), and check the battery of the mainboard"
    now_s = time.time()
    newest_s = max((f.stat().st_mtime for f in state.rglob("*") if f.is_file()), default=0.0)
    if newest_s > now_s + FUTURE_S:
        return Finding(
            "error",
            "clock",
            "clock_back",
            f"the clock says {_date(now_s)}, but {state} holds files of {_date(newest_s)}: it has"
            " gone back",
            fix,
        )
    if not is_synchronised():
        text = f"the clock says {_date(now_s)}, but nothing keeps it right"
        if not is_trusted(clock_sync):
            text += ": values are `uncertain`"
            fix += "; for a site without a time server: `clock_sync: ignored`"
        return Finding("warning", "clock", "clock_unsynchronised", text, fix)
    return Finding("ok", "clock", "clock", f"{_date(now_s)}, kept right by NTP")


def _date(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))


def processes(site: Site) -> list[Finding]:
    """What supervisord says of the processes."""
    try:
        rows = process_table.read(str(render.supervisor_socket(site)))
    except process_table.SupervisorUnavailable as e:
        return [
            Finding(
                "warning",
                "processes",
                "not_running",
                f"plc-edge does not run: {e}",
                "start it: `systemctl start plc-edge`, or `plc-edge run`",
            )
        ]
    down = [r for r in rows if r.state not in ("RUNNING", "STARTING")]
    if not down:
        return [Finding("ok", "processes", "processes", f"all {len(rows)} run")]
    return [
        Finding(
            "error",
            f"process {r.name}",
            "process_down",
            f"is {r.state} ({r.last_end})",
            f"see {site.config.paths.log_dir}/{r.name}.log",
        )
        for r in down
    ]


def stale(site: Site, runtime: Path) -> Iterator[Finding]:
    """Processes that hold a lock though supervisord does not know them: twice the same reader."""
    try:
        known = {r.name: r.pid for r in process_table.read(str(render.supervisor_socket(site)))}
    except process_table.SupervisorUnavailable:
        known = {}
    found = False
    for file in sorted(runtime.glob("*.lock")) if runtime.is_dir() else []:
        pid = _holder(file)
        if pid and known.get(file.stem) != pid and _is_service(file.stem):
            found = True
            yield Finding(
                "error",
                f"process {file.stem}",
                "stale_process",
                f"process {pid} still runs from an earlier start and keeps a new one from working",
                f"`kill {pid}` (then `kill -9 {pid}`)",
            )
    if not found:
        yield Finding("ok", "processes", "no_stale", "none left over from an earlier start")


def _is_service(name: str) -> bool:
    """Whether a lock of this name is a service's: `plc-edge run` and `apply` hold others."""
    prefixes = [p.prefix for p in topology.PROCESSES.values()]
    return any(name == p or name.startswith(f"{p}-") for p in prefixes)


def _holder(file: Path) -> int:
    """The pid of whoever holds the lock file; 0 when nobody does."""
    try:
        with file.open("rb") as f:
            try:
                # Shared, and given back at once: a process that starts now waits for 5 s.
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(f.read() or 0)
    except (OSError, ValueError):
        return 0
    return 0


def port(site: Site, runtime: Path) -> Finding:
    """Whether the metrics port is ours or free."""
    m = site.config.metrics
    subject = "metrics"
    try:
        panel.ask(runtime)
        return Finding("ok", subject, "metrics", f"answers on {m.host}:{m.port}")
    except panel.MetricsUnavailable:
        pass
    family = socket.AF_INET6 if ":" in m.host else socket.AF_INET
    try:
        socket.create_server((m.host, m.port), family=family).close()
    except OSError as e:
        return Finding(
            "error",
            subject,
            "port",
            f"{m.host}:{m.port} cannot be used: {e.strerror}{_owner(m.port)}",
            "stop the program that holds it, or set another metrics.port",
        )
    return Finding("ok", subject, "port", f"port {m.port} is free")


def _owner(number: int) -> str:
    try:
        for c in psutil.net_connections("tcp"):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == number and c.pid:
                return f"; process {c.pid} ({psutil.Process(c.pid).name()}) holds it"
    except psutil.Error:
        pass
    return ""
