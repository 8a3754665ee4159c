"""The box's own check, run on a configuration that somebody sent.

In a process of its own, made for one check: what a hostile file can cost is bounded by the kernel
(time, memory), the file lies in an empty folder, names no other file and no variable, and a crash
costs nobody else anything. The processes are forked from a small one that has loaded the models
already: a fork costs 10 ms, Python and its imports 400.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from services.infra import tenant
from services.runtime import alert_series, estimate, loader, secrets, yaml_lines
from services.runtime.config import Credentials
from services.runtime.errors import ConfigError, Problem
from services.runtime.site import Site

TIME_S = 5
WAIT_S = 10.0
MEMORY_BYTES = 512 * 2**20
# Checks at once; more wait.
CHECKS = 2
# What `plc-edge check` assumes unless told otherwise.
RTT_S, JOBS = 0.005, 3

Found = dict[str, Any]
_FILE = "config.yaml"


class Checker:
    """Checks configurations, each in a process of its own."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._slots = threading.BoundedSemaphore(CHECKS)

    def check(self, yaml: str, layouts: Mapping[str, str]) -> Found:
        """What the box would say. ``problems`` is empty where it would take it."""
        with self._slots, tempfile.TemporaryDirectory(prefix="plc-edge-check-") as folder:
            ours, theirs = self._context.Pipe(duplex=False)
            with ours:
                worker = self._context.Process(
                    target=_work, args=(folder, yaml, dict(layouts), theirs), daemon=True
                )
                worker.start()
                theirs.close()
                found: Found | None = None
                if ours.poll(WAIT_S):
                    with contextlib.suppress(EOFError):
                        found = ours.recv()
                worker.kill()
                worker.join()
        if found is None:
            message = f"cannot be checked within {TIME_S} s and {MEMORY_BYTES // 2**20} MB"
            return _refused([Problem(_FILE, "", message, hint="make it smaller")])
        return found


def _work(folder: str, yaml: str, layouts: dict[str, str], answer: Connection) -> None:
    """In the new process."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_S, TIME_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(MemoryError, RecursionError):
        answer.send(look(Path(folder), yaml, layouts))


def look(folder: Path, yaml: str, layouts: Mapping[str, str]) -> Found:
    """Writes the files into an empty folder and checks them there."""
    for name, text in {_FILE: yaml, **layouts}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    file = folder / _FILE
    try:
        outside = list(_outside(file, layouts))
        if outside:
            return _refused(outside)
        # No environment: neither overrides of this machine nor its secrets.
        site, problems = loader.judge(file, {}, check_secrets=False)
        problems += estimate.torn(site)
    except ConfigError as e:
        return _refused(e.problems, folder)
    if problems:
        return _refused(loader.in_order(problems), folder)
    clear = [Problem(_FILE, key, "is a secret in clear", hint=_NO_SECRET) for key in _clear(site)]
    if clear:
        return _refused(clear)
    rows = estimate.rows(site, RTT_S, JOBS)
    return {
        "problems": [],
        "warnings": estimate.warnings(site, rows),
        "plan": rows,
        "site": site.config.site,
        "plcs": [{"id": p.id, "tenant": site.config.tenant(p)} for p in site.config.plcs],
        "tenants": site.config.tenants(),
        "kinds": [sorted(names) for names in _kinds(site)],
        "series": alert_series.of_site(site),
    }


def _kinds(site: Site) -> tuple[frozenset[str], ...]:
    """Names of fields, as the tasks of InfluxDB tell them apart."""
    found = tenant.kinds(site)
    return found.booleans, found.counters, found.others


_NO_SECRET = "the centre keeps every version: use `password_file:` or `${VARIABLE}`"


def _outside(file: Path, layouts: Mapping[str, str]) -> Iterator[Problem]:
    """Layouts that were not sent along: nothing else of this machine may be read. And files that
    were, and are none: the centre keeps no others, and no box takes them.
    """
    named = set()
    document = yaml_lines.load(file)
    document.file = _FILE
    for p, plc in enumerate(_list(document.data, "plcs")):
        for g, group in enumerate(_list(plc, "groups")):
            name = group.get("layout") if isinstance(group, dict) else None
            named.add(str(PurePosixPath(str(name))))
            if name is None or str(PurePosixPath(str(name))) in layouts:
                continue
            key = ("plcs", p, "groups", g, "layout")
            message = f"layout {name} was not sent along"
            hint = "add its text to `layouts`, under this name"
            yield document.problem(key, message, hint)
    for name in sorted(layouts.keys() - named):
        yield Problem(name, "", "no group names it", hint="leave it out, or name it in `layout:`")


def _list(data: Any, key: str) -> list[Any]:
    items = data.get(key) if isinstance(data, dict) else None
    return items if isinstance(items, list) else []


def _clear(site: Site) -> Iterator[str]:
    """Keys under which a secret stands itself."""
    for path, model in _models(site.config, ""):
        for name in ("password", "token"):
            value = getattr(model, name, None)
            if (
                isinstance(model, Credentials)
                and value is not None
                and secrets.reference_of(model, name, Path()) is None
            ):
                yield f"{path}.{name}"
        url = getattr(model, "url", None)
        if isinstance(url, str) and "@" in urlsplit(url).netloc:
            yield f"{path}.url"
        if getattr(model, "headers", None):
            yield f"{path}.headers"


def _models(value: Any, path: str) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield path, value
        for name, inner in value:
            yield from _models(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _models(inner, f"{path}[{i}]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _models(inner, f"{path}.{name}")


def _refused(problems: list[Problem], folder: Path | None = None) -> Found:
    def shown(text: str) -> str:
        return text.replace(f"{folder}/", "") if folder else text

    return {
        "problems": [
            {
                "file": shown(p.file),
                "line": p.line,
                "key": p.key,
                "message": shown(p.message),
                "hint": shown(p.hint),
            }
            for p in problems
        ]
    }
