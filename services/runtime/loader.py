"""``config.yaml``, environment and layout files -> one checked ``Site``, or all problems."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bus import topology
from services.runtime import mirror_rules, secrets, yaml_lines
from services.runtime.config import (
    Config,
    Credentials,
    Group,
    HttpOutput,
    HttpTls,
    MqttOutput,
    Plc,
    Tls,
)
from services.runtime.errors import ConfigError, Problem
from services.runtime.tls import EncryptedKey, refuse_encrypted
from services.runtime.yaml_lines import KeyPath, dotted, line_of
from services.s7.layout import Field, LayoutError, resolve_inline, resolve_layout

ENV_PREFIX = "PLC_EDGE__"
DEFAULT_FILES = (Path("/etc/plc-edge/config.yaml"), Path("config.yaml"))
# Raw retention of each plan in days (docs/ESTRATEGIA_RETENCAO_DADOS.md): what is replayed later
# than that, Telegraf drops.
RAW_RETENTION_DAYS = {"free": 3, "pro": 7, "enterprise": 30}
# What a S7 data block can hold.
BLOCK_BYTES = 65_536
M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Site:
    """A checked configuration with its layouts resolved to fields."""

    config: Config
    fields: dict[tuple[str, str], list[Field]]
    """By (PLC id, group name); with machines, offsets are relative to the machine's first byte."""
    files: list[Path]
    """Every file it was made from: the configuration and its layouts."""


def machines(group: Group) -> list[tuple[str | None, int]]:
    """(name, first byte) of each machine of a group; one nameless one where nothing repeats."""
    if (m := group.machines) is None:
        return [(None, 0)]
    return [(m.name.format(n=n), m.first + n * m.stride) for n in range(m.count)]


def find(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration to use: ``--config``, else PLC_EDGE_CONFIG, else the usual places."""
    if given is None and "PLC_EDGE_CONFIG" in environ:
        given = Path(environ["PLC_EDGE_CONFIG"])
    if given is not None:
        return given
    return next((f for f in DEFAULT_FILES if f.exists()), DEFAULT_FILES[0])


def load(
    path: Path, environ: Mapping[str, str] = os.environ, *, check_secrets: bool = True
) -> Site:
    """Reads, overrides, validates. Raises ConfigError carrying every problem found.

    ``check_secrets=False``: on a machine that is not the box, its secrets cannot be read.
    """
    config, lines, origin = read(
        Config,
        path,
        environ,
        ENV_PREFIX,
        "`site:`, `locatario:` and `plcs:`",
        "config.example.yaml",
    )
    config._file = path
    site = Site(config, {}, [path])
    problems = [
        *_duplicates(config, str(path), lines),
        *_layouts(site, path, lines),
    ]
    problems += _references(site, path, lines)
    if check_secrets:
        config._warnings += _shared_accounts(config)
        problems += _secret_problems(config, path, lines)
        problems += _certificate_problems(config, path, lines)
    problems += _paths(config, str(path), lines)
    if problems:
        raise ConfigError(_blame_variables(problems, str(path), lines, origin))
    return site


def read(
    model: type[M],
    path: Path,
    environ: Mapping[str, str],
    prefix: str,
    begin: str,
    example: str,
) -> tuple[M, dict[KeyPath, int], dict[KeyPath, str]]:
    """A YAML file, overridden by the variables that begin with ``prefix``, as a ``model``; with it
    the line of each key, and the variable of each key that one has set.

    ``begin`` and ``example`` (a file of deploy/) stand in the hint for an empty file. Raises
    ConfigError carrying every mistake that the model alone can tell.
    """
    data, lines = yaml_lines.load(path)
    if not isinstance(data, dict):
        message = "is empty" if data is None else "is not a list of keys and values"
        hint = f"begin with {begin} (deploy/{example})"
        raise ConfigError([Problem(str(path), "", message, 1, hint)])
    origin = _override(data, environ, prefix)
    try:
        return model.model_validate(data), lines, origin
    except ValidationError as e:
        problems = list(_model_problems(e, data, str(path), lines, model))
        raise ConfigError(_blame_variables(problems, str(path), lines, origin)) from None


# --- environment -----------------------------------------------------------------------------


def _override(data: dict[str, Any], environ: Mapping[str, str], prefix: str) -> dict[KeyPath, str]:
    """Puts PLC_EDGE__A__B=value into ``data``; returns which variable set which path.

    List items are named: PLC_EDGE__OUTPUTS__CENTRAL__HOST; a hyphen is written as `_`.
    """
    origin: dict[KeyPath, str] = {}
    for variable in sorted(v for v in environ if v.startswith(prefix)):
        parts = variable.removeprefix(prefix).lower().split("__")
        if not all(parts):
            hint = f"two underscores between the keys, as in {prefix}METRICS__PORT"
            raise ConfigError([Problem("environment", variable, "names no key", hint=hint)])
        target: Any = data
        path: KeyPath = ()
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            key: str | int
            if isinstance(target, list):
                key = _item(target, part, variable)
            elif isinstance(target, dict):
                key = next((k for k in target if str(k).lower().replace("-", "_") == part), part)
            else:
                message = f"`{dotted(path)}` has no keys"
                raise ConfigError([Problem("environment", variable, message)])
            path = (*path, key)
            if last:
                target[key] = _value(environ[variable], variable)
            elif isinstance(target, dict) and target.get(key) is None:
                target[key] = {}
            if not last:
                target = target[key]
        origin[path] = variable
    return origin


def _value(text: str, variable: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # of 2025-13-01, which looks like a date
        hint = """put quotes inside the value: NAME='"…"'"""
        raise ConfigError([Problem("environment", variable, "is not YAML", hint=hint)]) from None


def _blame_variables(
    problems: list[Problem], file: str, lines: dict[KeyPath, int], origin: dict[KeyPath, str]
) -> list[Problem]:
    """The same problems; those of the file that a variable has made name the variable."""
    return [_blame_variable(p, lines, origin) if p.file == file else p for p in problems]


def _blame_variable(
    problem: Problem, lines: dict[KeyPath, int], origin: dict[KeyPath, str]
) -> Problem:
    path = _parse_path(problem.key)
    above = [at for at in origin if path[: len(at)] == at]
    if above:
        at = max(above, key=len)
        message = problem.message if at == path else f"`{problem.key}`: {problem.message}"
        return Problem("environment", origin[at], message, hint=problem.hint)
    # A variable also makes the keys above its own, and may spoil what stands beside it.
    stands = next(n for n in range(len(path), -1, -1) if path[:n] in lines)
    reach = path[: stands + 1]
    inside = [v for at, v in origin.items() if at[: len(reach)] == reach]
    if not inside or not path:
        return problem
    variables = ", ".join(inside)
    if stands < len(path):
        message = f"`{problem.key}`: {problem.message}"
        return Problem("environment", variables, message, hint=problem.hint)
    return replace(problem, message=f"{problem.message} (with {variables} from the environment)")


def _item(items: list[Any], name: str, variable: str) -> int:
    names = [str(i.get("name", i.get("id", ""))) if isinstance(i, dict) else "" for i in items]
    for index, candidate in enumerate(names):
        if candidate.lower().replace("-", "_") == name:
            return index
    hint = f"use one of: {', '.join(n.upper().replace('-', '_') for n in names if n)}"
    raise ConfigError([Problem("environment", variable, f"no item named {name!r}", hint=hint)])


# --- pydantic's errors in our words ----------------------------------------------------------


def _model_problems(
    error: ValidationError,
    data: Any,
    file: str,
    lines: dict[KeyPath, int],
    root: type[BaseModel],
) -> Iterator[Problem]:
    seen: set[tuple[KeyPath, str]] = set()
    for e in error.errors(include_url=False):
        path = _real_path(e["loc"], data, e["type"] in ("missing", "extra_forbidden"))
        message, hint = _say(e["type"], e["msg"], e.get("input"), path, data, root)
        if (path, message) in seen:
            continue
        seen.add((path, message))
        yield Problem(file, dotted(path), message, line_of(lines, path), hint)


def _real_path(loc: tuple[str | int, ...], data: Any, keep_last: bool) -> KeyPath:
    """pydantic's location without the union tags it puts between our keys."""
    path: KeyPath = ()
    for i, part in enumerate(loc):
        inside = part in data if isinstance(data, dict) else False
        if isinstance(data, list) and isinstance(part, int):
            inside = part < len(data)
        if inside:
            data = data[part]
        elif not (keep_last and i == len(loc) - 1):
            continue
        path = (*path, part)
    return path


_SECRET_KEYS = re.compile(r"password|token|secret|headers|database", re.IGNORECASE)


def _say(
    kind: str, text: str, value: Any, path: KeyPath, data: Any, root: type[BaseModel]
) -> tuple[str, str]:
    """(message, fix) of one pydantic error; never shows what may be a secret."""
    if kind == "extra_forbidden":
        known = sorted(_known_keys(path[:-1], data, root))
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return "unknown key", hint
    if kind == "missing":
        return "is missing", f"add `{path[-1]}:`"
    if kind.startswith("union_tag"):
        return "`type` is missing or unknown", "give `type: mqtt`, `type: http` or `type: stdout`"
    if kind == "host":
        # The value may hold more than a host: mqtt://user:password@broker.
        shown = "" if "@" in str(value) else f" (it is {value!r})"
        hint = "host name or address only, e.g. 192.168.0.10; the port stands in `port`"
        return text + shown, hint
    text = text.removeprefix("Value error, ")
    hint = ""
    if kind == "string_pattern_mismatch" and "{1,31}" in text:
        text = "is no valid name"
        hint = "2 to 32 of a-z, 0-9, `_`, `-`, beginning with a letter or digit"
    if any(_SECRET_KEYS.search(str(p)) for p in path) or isinstance(value, dict | list):
        return text, hint
    return f"{text} (it is {value!r})", hint


def _known_keys(path: KeyPath, data: Any, root: type[BaseModel]) -> set[str]:
    """Which keys the models allow at ``path``."""
    models: list[type[BaseModel]] = [root]
    for part in path:
        data = data[part]
        if isinstance(part, int):
            tag = data.get("type") if isinstance(data, dict) else None
            models = [m for m in models if tag is None or _tag(m) in (None, tag)] or models
            continue
        found = [_field(m, part) for m in models]
        models = [m for annotation in found for m in _models_in(annotation)]
    return {f.alias or name for m in models for name, f in m.model_fields.items()}


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return typing.get_args(field.annotation)[0] if field else None


def _field(model: type[BaseModel], key: str) -> Any:
    return next((f.annotation for n, f in model.model_fields.items() if key in (n, f.alias)), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


# --- what one key alone cannot tell ----------------------------------------------------------


def _duplicates(config: Config, file: str, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    lists: list[tuple[KeyPath, str, list[str]]] = [
        (("plcs",), "id", [p.id for p in config.plcs]),
        (("outputs",), "name", [o.name for o in config.outputs]),
        (("mirrors",), "name", [m.name for m in config.mirrors]),
    ]
    for i, plc in enumerate(config.plcs):
        lists.append((("plcs", i, "groups"), "name", [g.name for g in plc.groups]))
    for at, key, names in lists:
        for name, times in Counter(names).items():
            if times > 1:
                last = len(names) - 1 - names[::-1].index(name)
                path = (*at, last, key)
                message = f"{name!r} stands {times} times in `{dotted(at)}`"
                yield Problem(file, dotted(path), message, line_of(lines, path), "rename one")


def _layouts(site: Site, path: Path, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    cache: dict[Path, tuple[Any, dict[KeyPath, int]]] = {}
    for p, plc in enumerate(site.config.plcs):
        for g, group in enumerate(plc.groups):
            at: KeyPath = ("plcs", p, "groups", g)
            try:
                fields = _group_fields(site, group, path, at, lines, cache)
            except ConfigError as e:
                yield from e.problems
                continue
            site.fields[plc.id, group.name] = fields
            yield from _group_problems(group, fields, str(path), at, lines)


def _group_fields(
    site: Site,
    group: Group,
    path: Path,
    at: KeyPath,
    lines: dict[KeyPath, int],
    cache: dict[Path, tuple[Any, dict[KeyPath, int]]],
) -> list[Field]:
    if group.layout is None:
        try:
            return resolve_inline(group.fields)
        except LayoutError as e:
            raise _layout_error(e, str(path), lines, (*at, "fields")) from None
    file = path.parent / group.layout
    if file not in cache:
        if not file.exists():
            key = (*at, "layout")
            hint = "layouts are looked up beside the configuration; import one with"
            hint += " `plc-edge layout import`"
            message = f"file {file} does not exist"
            problem = Problem(str(path), dotted(key), message, line_of(lines, key), hint)
            raise ConfigError([problem])
        cache[file] = yaml_lines.load(file)
        site.files.append(file)
    doc, layout_lines = cache[file]
    try:
        return resolve_layout(doc, db=group.db)
    except LayoutError as e:
        raise _layout_error(e, str(file), layout_lines, ()) from None


def _layout_error(
    error: LayoutError, file: str, lines: dict[KeyPath, int], base: KeyPath
) -> ConfigError:
    """A layout's problems with the lines of the file they stand in."""
    problems = []
    for p in error.problems:
        path: KeyPath = (*base, *_parse_path(p.path))
        problems.append(Problem(file, dotted(path), p.message, line_of(lines, path), p.hint))
    return ConfigError(problems)


def _parse_path(text: str) -> KeyPath:
    """``fields[3].type`` as ``("fields", 3, "type")``."""
    return tuple(int(i) if i else k for k, i in re.findall(r"([^.\[\]]+)|\[(\d+)\]", text) or ())


def _group_problems(
    group: Group, fields: list[Field], file: str, at: KeyPath, lines: dict[KeyPath, int]
) -> Iterator[Problem]:
    def problem(key: str, message: str, hint: str) -> Problem:
        path = (*at, key)
        return Problem(file, dotted(path), message, line_of(lines, path), hint)

    if not fields:
        yield problem("fields", "holds no field", "name at least one")
        return
    names = {f.name for f in fields}
    if group.timestamp is not None:
        stamp = next((f for f in fields if f.name == group.timestamp), None)
        if stamp is None:
            near = difflib.get_close_matches(group.timestamp, names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "name a field of this group"
            yield problem("timestamp", f"no field is named {group.timestamp!r}", hint)
        elif stamp.type not in ("DTL", "DT", "LDT"):
            yield problem(
                "timestamp", f"{stamp.name} is {stamp.type}", "use a field of type DTL, DT or LDT"
            )
    for i, name in enumerate(group.trend):
        if name not in names:
            yield problem(f"trend[{i}]", f"no field is named {name!r}", "name a field")
    if group.machines is not None:
        begin = min(f.byte for f in fields)
        end = max(f.byte + f.size_bytes for f in fields)
        if group.machines.count > 1 and group.machines.stride < end - begin:
            yield problem(
                "machines",
                f"machines overlap: one record is {end - begin} bytes, the stride is"
                f" {group.machines.stride}",
                f"set `stride: {end - begin + (end - begin) % 2}` or more",
            )
    last = machines(group)[-1][1] + max(f.byte + f.size_bytes for f in fields)
    if last > BLOCK_BYTES:
        key = "machines" if group.machines else "layout" if group.layout else "fields"
        yield problem(key, f"reaches byte {last - 1}", f"a block ends at byte {BLOCK_BYTES - 1}")


def _references(site: Site, path: Path, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    config = site.config
    for i, mirror in enumerate(config.mirrors):
        plc: Plc | None = next((p for p in config.plcs if p.id == mirror.source.plc), None)
        key: KeyPath = ("mirrors", i, "source", "plc")
        names = [p.id for p in config.plcs]
        wanted = mirror.source.plc
        if plc is not None:
            key = ("mirrors", i, "source", "group")
            names = [g.name for g in plc.groups]
            wanted = mirror.source.group
        if wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(names)}"
            message = f"no {key[-1]} is named {wanted!r}"
            yield Problem(str(path), dotted(key), message, line_of(lines, key), hint)
    for i, output in enumerate(config.outputs):
        for tenant in output.locatarios or []:
            if tenant not in config.tenants():
                key = ("outputs", i, "locatarios")
                hint = f"one of: {', '.join(config.tenants())}"
                message = f"no PLC belongs to {tenant!r}"
                yield Problem(str(path), dotted(key), message, line_of(lines, key), hint)
    for rule in mirror_rules.check(site):
        key = _parse_path(rule.path)
        yield Problem(str(path), rule.path, rule.message, line_of(lines, key), rule.hint)
    yield from _retention(config, str(path), lines)


def _shared_accounts(config: Config) -> Iterator[str]:
    """One connection per tenant: a broker that takes the user name for the client id would let
    connections of one account evict each other.
    """
    for output in config.outputs:
        if not isinstance(output, MqttOutput) or output.username is None:
            continue
        tenants = [t for t in config.tenants() if t in (output.locatarios or config.tenants())]
        without = [t for t in tenants if t not in output.accounts]
        if len(without) > 1:
            yield (
                f"output {output.name!r} serves {', '.join(without)} with one account; give each"
                " tenant its own under `accounts:`"
            )


def _retention(config: Config, file: str, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    for tenant, plan in config.infra.plan.items():
        days = RAW_RETENTION_DAYS[plan]
        if config.store.max_age > days * 86_400:
            key = ("store", "max_age")
            message = (
                f"is longer than the {days} d that plan {plan!r} of {tenant!r} keeps raw values:"
                " Telegraf would drop what is replayed later"
            )
            hint = f"set `max_age: {days}d` or a larger plan"
            yield Problem(file, dotted(key), message, line_of(lines, key), hint)


def _secret_problems(config: Config, path: Path, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    holders: list[tuple[KeyPath, Credentials]] = [(("metrics",), config.metrics)]
    for i, output in enumerate(config.outputs):
        holders.append((("outputs", i), output))
        if isinstance(output, MqttOutput):
            for tenant, account in output.accounts.items():
                holders.append((("outputs", i, "accounts", tenant), account))
    for at, holder in holders:
        for name in ("password", "token"):
            if (
                getattr(holder, name, None) is not None
                and secret_reference(holder, name, path.parent) is None
            ):
                config._warnings.append(
                    f"{path}: {dotted((*at, name))} is in clear; use `{name}_file:` or"
                    " ${VARIABLE}"
                )
            reference = secret_reference(holder, name, path.parent)
            if reference is None:
                continue
            try:
                secrets.resolve(reference)
            except ConfigError as e:
                key = (*at, f"{name}_file" if "file" in reference else name)
                for p in e.problems:
                    message = (
                        f"{p.file}: {p.message}"
                        if p.file != "environment"
                        else (f"{p.key}: {p.message}")
                    )
                    yield Problem(str(path), dotted(key), message, line_of(lines, key), p.hint)


def _certificate_problems(
    config: Config, path: Path, lines: dict[KeyPath, int]
) -> Iterator[Problem]:
    holders: list[tuple[KeyPath, Tls | HttpTls]] = []
    if config.metrics.tls:
        holders.append((("metrics", "tls"), config.metrics.tls))
    for i, output in enumerate(config.outputs):
        if isinstance(output, MqttOutput | HttpOutput) and output.tls:
            holders.append((("outputs", i, "tls"), output.tls))
    for at, tls in holders:
        files = {k: path.parent / f for k, f in tls if f is not None}
        for name, file in files.items():
            if not os.access(file, os.R_OK):
                key = (*at, name)
                message = f"{file} cannot be read"
                hint = "copy the file there, readable by the user that runs plc-edge"
                yield Problem(str(path), dotted(key), message, line_of(lines, key), hint)
        if "key" in files:
            try:
                refuse_encrypted(files["cert"], files["key"])
            except EncryptedKey as e:
                key = (*at, "key")
                yield Problem(str(path), dotted(key), e.args[0], line_of(lines, key), e.hint)


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def secret_reference(holder: Credentials, name: str, base: Path) -> dict[str, str] | None:
    """``{"file": …}`` or ``{"env": …}`` of a secret; None where it is absent or in clear."""
    file: Path | None = getattr(holder, f"{name}_file", None)
    if file is not None:
        return {"file": str((base / file).absolute())}
    if match := _VARIABLE.fullmatch(getattr(holder, name, None) or ""):
        return {"env": match[1]}
    return None


def _paths(config: Config, file: str, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    items = {"plc": [p.id for p in config.plcs], "output": [o.name for o in config.outputs]}
    for wire in topology.WIRES.values():
        for item in items.get(wire.per, [""]):
            try:
                topology.endpoint(config.paths.runtime, wire.name, item)
            except ValueError as e:
                key = ("paths", "runtime")
                yield Problem(file, dotted(key), str(e), line_of(lines, key))
                return
