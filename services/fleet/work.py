"""``python -P -m services.fleet.work VERB STATE CONFIG [SHA256]``: what the fleet process has done
in a process of its own.

For it needs what ``plc-edge check`` and ``apply`` load (40 MB), and a configuration that brings the
checker down must not bring down the one who asked. It lives on when the fleet process is killed or
restarted by its own apply. Each verb may be begun again after having been killed anywhere.

Prints one JSON object. Exit 0: done · 2: the configuration is at fault · else: try again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from services.fleet import identity
from services.fleet.files import Folder, Texts, read, read_json, unsafe, write
from services.runtime import applying, estimate, loader, render, yaml_lines
from services.runtime.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    PlcEdgeError,
    Problem,
)
from services.runtime.failpoints import hit
from services.runtime.site import Site

CHECK_CPU_S = 60
Answer = dict[str, Any]


def check(folder: Folder, sha256: str) -> Answer:
    """Whether this box would take a version; ``leaves``: it has no ``fleet:``."""
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_S, CHECK_CPU_S))
    texts = folder.version(sha256)
    name = folder.config_file.name
    wrong = [
        Problem(
            layout, "", f"this layout's path {why}", hint="give it a plain path, layouts/x.yaml"
        )
        for layout in texts.layouts
        if (why := unsafe(layout, name))
    ]
    # Any other file beside the configuration is somebody else's.
    named = set(_named(yaml_lines.parse(texts.yaml, name).data))
    wrong += [
        Problem(layout, "", "no group names it", hint="leave it out, or name it in `layout:`")
        for layout in texts.layouts
        if layout not in named and not unsafe(layout, name)
    ]
    if wrong:
        raise ConfigError(wrong)
    with _overlay(folder, texts) as staged:
        try:
            site, problems = loader.judge(staged)
            problems += estimate.torn(site)
            problems = problems or list(_foreign(folder, site))
        except ConfigError as e:
            problems = e.problems
        if problems:
            raise ConfigError([_shown(p, staged.parent) for p in loader.in_order(problems)])
    return {"leaves": site.config.fleet is None}


@contextlib.contextmanager
def _overlay(folder: Folder, texts: Texts) -> Iterator[Path]:
    """The configuration's folder as it would be: links to all that stands there (secrets and
    certificates are named beside it), and the version's files.
    """
    for stale in folder.own.glob("check-*"):  # of one that was killed: we are alone
        shutil.rmtree(stale, ignore_errors=True)
    staged = Path(tempfile.mkdtemp(prefix="check-", dir=folder.own))
    try:
        files = {folder.config_file.name: texts.yaml, **texts.layouts}
        _link(folder.config_file.parent.absolute(), staged, {Path(name) for name in files})
        for name, text in files.items():
            file = staged / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
        yield staged / folder.config_file.name
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _link(source: Path, target: Path, own: set[Path]) -> None:
    inside: dict[str, set[Path]] = {}
    for file in own:
        inside.setdefault(file.parts[0], set()).add(Path(*file.parts[1:]))
    for entry in source.iterdir():
        rest = inside.get(entry.name)
        if rest is None:
            (target / entry.name).symlink_to(entry)
        elif entry.is_dir() and Path() not in rest:
            (target / entry.name).mkdir()
            _link(entry, target / entry.name, rest)


def _foreign(folder: Folder, site: Site) -> Iterator[Problem]:
    """What nobody may change from afar: who the box is, and where it lives."""
    config = site.config
    who = identity.load(folder.own)
    if who is not None and config.site != who.site:
        message = f"is {config.site!r}, and this box is {who.site!r}"
        yield site.problem(("site",), message, "give each box its own configuration")
    applied = render.load_applied(folder.state)
    if applied is None:
        return
    now = next(iter(applied.values()))
    for key, path in (
        ("state", config.paths.state), ("runtime", config.paths.runtime),
        ("logs", config.paths.log_dir),
    ):  # fmt: skip
        if str(path.absolute()) != now[key]:
            message = f"is {path}, and this box lives in {now[key]}"
            hint = "leave it as it is; at the box itself: change it and restart plc-edge"
            yield site.problem(("paths", key), message, hint)


def _shown(problem: Problem, staged: Path) -> Problem:
    """Without the folder in which it was tried."""

    def short(text: str) -> str:
        return text.replace(f"{staged}/", "")

    return Problem(
        short(problem.file), problem.key, short(problem.message), problem.line, short(problem.hint)
    )


def prepare(folder: Folder, sha256: str) -> Answer:
    """Keeps what runs now, to go back to; what was changed here and not applied, for people."""
    texts = folder.version(sha256)
    running = folder.journal().running
    layouts = {*texts.layouts}
    if running is not None:
        with contextlib.suppress(OSError, ValueError):
            layouts |= {*folder.version(running.sha256).layouts}
    applied = folder.applied()
    local = folder.local(layouts)
    yaml = local.yaml if applied is None else applied
    with contextlib.suppress(ConfigError):
        layouts |= set(_named(yaml_lines.parse(yaml, "config.yaml").data))
    before = {
        "yaml": yaml,
        "layouts": {name: read(folder.at(name)) for name in sorted(layouts)},
        "rendered": render.load_applied(folder.state),
    }
    for name in (folder.config_file.name, *texts.layouts):
        folder.sweep(name)
        if reason := folder.why_unwritable(name):
            hint = "the service must be allowed to: docs/frota.md, “Liberar a pasta”"
            raise ConfigError([Problem(str(folder.at(name)), "", reason, hint=hint)])
    hit("fleet.prepare")
    write(folder.before, json.dumps(before))
    answer: Answer = {}
    # Before the first version of the centre they are all the plant's own.
    if running is None or yaml != local.yaml or local.sha256 != running.sha256:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        answer["kept"] = str(folder.keep_local(layouts, when))
    return answer


def _named(data: Any) -> Iterator[str]:
    """The layouts beside it that a configuration names."""
    for plc in _list(data, "plcs"):
        for group in _list(plc, "groups"):
            name = group.get("layout") if isinstance(group, dict) else None
            name = str(PurePosixPath(name)) if isinstance(name, str) else ""
            if not unsafe(name, ""):
                yield name


def _list(data: Any, key: str) -> list[Any]:
    items = data.get(key) if isinstance(data, dict) else None
    return items if isinstance(items, list) else []


def apply(folder: Folder, sha256: str) -> Answer:
    """Puts a version in place and has the site take it."""
    texts = folder.version(sha256)
    for name, text in texts.layouts.items():
        folder.place(name, text)
        hit("fleet.place")
    folder.place(folder.config_file.name, texts.yaml)
    hit("fleet.placed")
    site = loader.load(folder.config_file)
    if site.config.fleet is None and not folder.kept.exists():
        # Somebody must watch it. What runs now goes on until it has proved good.
        fleet = read_json(site.config.paths.runtime.absolute() / "conf" / "fleet.json")
        write(folder.kept, json.dumps(fleet))
    said = applying.apply(site)
    hit("fleet.applied")
    return {"said": said}


def restore(folder: Folder, sha256: str) -> Answer:
    """What ran before runs again, just as it did: from what was rendered then."""
    before = json.loads(folder.before.read_bytes())
    answer: Answer = {}
    names = list(before["layouts"])
    local, ours = folder.local(names), Texts(before["yaml"], _present(before["layouts"]))
    with contextlib.suppress(OSError, ValueError):
        texts = folder.version(sha256)
        placed = folder.local(texts.layouts)
        half = folder.applied() != texts.yaml
        if not half and placed.sha256 != sha256 and local.sha256 != ours.sha256:
            # Somebody has edited them since.
            when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            answer["kept"] = str(folder.keep_local({*names, *texts.layouts}, when))
    folder.kept.unlink(missing_ok=True)
    for name, text in before["layouts"].items():
        folder.place(name, text)
    folder.place(folder.config_file.name, before["yaml"])
    hit("fleet.replaced")
    rendered = before["rendered"]
    if rendered:
        answer["said"] = applying.restore(rendered, str(folder.config_file))
        applied = folder.state / "applied"
        write(applied / "rendered.json", json.dumps(rendered, indent=2))
        write(applied / "config.yaml", before["yaml"])
    else:
        answer["said"] = applying.apply(loader.load(folder.config_file))
    hit("fleet.restored")
    return answer


def _present(layouts: dict[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in layouts.items() if text is not None}


def leave(folder: Folder, _sha256: str) -> Answer:
    """A good configuration without ``fleet:``: the site goes on without this process."""
    folder.kept.unlink(missing_ok=True)
    folder.quotas.unlink(missing_ok=True)
    hit("fleet.leave")
    return {"said": applying.apply(loader.load(folder.config_file))}


@contextlib.contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """One at a time: whoever asked may have been killed, and started again, before we ended."""
    fd = os.open(folder.own / "work.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


_STEPS = {"apply": "applying", "restore": "reverting", "leave": "leaving"}


def _still_wanted(folder: Folder, verb: str, sha256: str) -> None:
    """Who had to wait may come too late: the journal says what is to be done now."""
    journal = folder.journal()
    attempt = journal.attempt
    about = attempt.target.sha256 if attempt is not None else sha256
    if (journal.step, about) != (_STEPS.get(verb, "idle"), sha256):
        raise PlcEdgeError(f"{verb} is not wanted any more: the step is {journal.step}")


VERBS: dict[str, Callable[[Folder, str], Answer]] = {
    "check": check, "prepare": prepare, "apply": apply, "restore": restore, "leave": leave,
}  # fmt: skip


def main(verb: str, state: str, config_file: str, sha256: str = "") -> int:
    """Does it; returns the exit code."""
    answer: Answer
    code = EXIT_OK
    try:
        folder = Folder(Path(state), Path(config_file))
        with _alone(folder):
            _still_wanted(folder, verb, sha256)
            answer = VERBS[verb](folder, sha256)
    except ConfigError as e:
        code = EXIT_USAGE
        answer = {
            "error": "the configuration has faults",
            "problems": [_as_json(p) for p in e.problems],
        }
    except PlcEdgeError as e:
        code, answer = EXIT_FAILURE, {"error": str(e)}
    except (OSError, ValueError, KeyError, TypeError) as e:
        code, answer = EXIT_FAILURE, {"error": f"{verb}: {type(e).__name__}: {e}"}
    sys.stdout.write(json.dumps(answer))
    return code


def _as_json(p: Problem) -> dict[str, Any]:
    """As the centre's own check says them."""
    return {"file": p.file, "line": p.line, "key": p.key, "message": p.message, "hint": p.hint}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
