"""``config.yaml``, environment and layout files -> one checked ``Site``, or all problems."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from services.runtime import alert_rules, environment, layouts, named_files, rules, yaml_lines
from services.runtime.alert_model import Alerts
from services.runtime.base_model import Model
from services.runtime.config import Config
from services.runtime.document import Document
from services.runtime.errors import ConfigError, Problem
from services.runtime.judged import Unknown
from services.runtime.site import Site
from services.runtime.validate import validate

# Who has made more is told these first.
MAX_PROBLEMS = 1_000
DEFAULT_FILES = (Path("/etc/plc-edge/config.yaml"), Path("config.yaml"))


def find(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration to use: ``--config``, else PLC_EDGE_CONFIG, else the usual places."""
    if given is None and "PLC_EDGE_CONFIG" in environ:
        given = Path(environ["PLC_EDGE_CONFIG"])
    if given is not None:
        return given
    # Path.exists raises where a folder may not be entered.
    return next((f for f in DEFAULT_FILES if os.path.exists(f)), DEFAULT_FILES[0])


def load(
    path: Path, environ: Mapping[str, str] = os.environ, *, check_secrets: bool = True
) -> Site:
    """Reads, overrides, validates. Raises ConfigError carrying every problem found.

    ``check_secrets=False``: on a machine that is not the box, its secrets cannot be read.
    """
    site, problems = judge(path, environ, check_secrets=check_secrets)
    if problems:
        raise ConfigError(problems)
    return site


def judge(
    path: Path, environ: Mapping[str, str] = os.environ, *, check_secrets: bool = True
) -> tuple[Site, list[Problem]]:
    """The site as far as it is right, and all that is wrong, in the order of lines.

    Raises ConfigError where nothing can be told, the file being no YAML.
    """
    begin = "`site:`, `locatario:` and `plcs:` (deploy/config.example.yaml)"
    document = read(path, environ, environment.PREFIX, begin)
    config, wrong = validate(document, Config)
    config._file = path
    site = Site(config, {}, [path], document)
    found = chain(document.problems, wrong, layouts.resolve(site), rules.broken(site))
    if check_secrets:
        found = chain(found, named_files.broken(site))
    problems = list(islice(found, MAX_PROBLEMS))
    if not problems:
        config._warnings += [str(p) for p in rules.unwise(site)]
        if check_secrets:
            config._warnings += [str(p) for p in named_files.unwise(site)]
    return site, in_order(problems)


def read(path: Path, environ: Mapping[str, str], prefix: str, begin: str) -> Document:
    """A YAML file of keys, overridden by the variables that begin with ``prefix``.

    ``begin`` stands in the hint for an empty file. Raises ConfigError where nothing can be told.
    """
    document = yaml_lines.load(path)
    if not isinstance(document.data, dict):
        message = "is empty" if document.data is None else "is not a list of keys and values"
        hint = f"begin with {begin}"
        raise ConfigError([*document.problems, Problem(str(path), "", message, 1, hint)])
    environment.override(document, environ, prefix)
    return document


class _RulesFile(Model):
    alerts: Alerts


def load_rules(path: Path) -> tuple[Alerts, Site | None]:
    """Alert rules of a whole configuration (with its site), or of a file that only holds
    ``alerts:`` or ``rules:``. Raises ConfigError carrying every problem found.
    """
    document = yaml_lines.load(path)
    data = document.data
    if not isinstance(data, dict) or not {"alerts", "rules", "plcs"} & data.keys():
        hint = "begin with `rules:`, or give a whole configuration"
        raise ConfigError([Problem(str(path), "", "holds no alert rules", 1, hint)])
    if "plcs" in data:
        site = load(path, check_secrets=False)
        return site.config.alerts, site
    root: type[_RulesFile | Alerts] = _RulesFile if "alerts" in data else Alerts
    inside = ("alerts",) if "alerts" in data else ()
    file, wrong = validate(document, root)
    problems = [*document.problems, *wrong]
    with suppress(Unknown):
        alerts = file.alerts if isinstance(file, _RulesFile) else file
        for m in alert_rules.check_alone(alerts):
            problems.append(document.problem((*inside, *m.path), m.message, m.hint))
    if problems:
        raise ConfigError(in_order(problems[:MAX_PROBLEMS]))
    return alerts, None


def in_order(problems: list[Problem]) -> list[Problem]:
    """Each problem once, by file and line; files in the order in which they were read."""
    files = {p.file: n for n, p in reversed(list(enumerate(problems)))}
    return sorted(dict.fromkeys(problems), key=lambda p: (files[p.file], p.line or 0))
