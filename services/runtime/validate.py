"""A document -> the configuration as far as it is right, and every mistake in it, in our words."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.runtime.base_model import Model
from services.runtime.document import Document, KeyPath
from services.runtime.errors import Problem

_SECRET_KEYS = re.compile(r"password|token|secret|headers|database", re.IGNORECASE)
_SHOWN_CHARACTERS = 100
# Who has made more is told these first: to look for what was meant takes its time.
MAX_PROBLEMS = 500


Root = TypeVar("Root", bound=Model)


def validate(document: Document, root: type[Root]) -> tuple[Root, list[Problem]]:
    """The configuration, or what else a file holds, and what is wrong in it.

    Where something is wrong, what asks for it raises Unknown (services/runtime/judged.py).
    """
    problems: list[Problem] = []
    wrong = set(document.doubtful)
    config: Any = None
    try:
        config = root.model_validate(document.data)
    except ValidationError as e:
        for path, message, hint in _mistakes(e, document, root, wrong):
            problems.append(document.problem(path, message, hint))
    if wrong:
        config = _Salvage(wrong, document).model(root, document.data, ())
    problems += (document.problem(at, message) for at, message in _broken_rules(config, ()))
    return config, problems


def _broken_rules(model: Model, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    yield from ((at, message) for message in model.broken_rules())
    for name, value in model:
        path = (*at, type(model).model_fields[name].alias or name)
        items: Iterable[tuple[KeyPath, Any]] = [(path, value)]
        if isinstance(value, list):
            items = (((*path, i), item) for i, item in enumerate(value))
        elif isinstance(value, dict):
            items = (((*path, key), item) for key, item in value.items())
        for where, item in items:
            if isinstance(item, Model):
                yield from _broken_rules(item, where)


class _Salvage:
    """Models of what is right in some data: what is wrong is not in them, nor its default."""

    def __init__(self, wrong: set[KeyPath], document: Document) -> None:
        self.wrong, self.document = wrong, document
        self.holds_wrong = {path[:n] for path in wrong for n in range(len(path) + 1)}

    def model(self, kind: type[Model], data: Any, at: KeyPath) -> Model:
        partial = kind.model_construct()
        if not isinstance(data, dict) or self.document.doubts(at):
            partial.__dict__.clear()
            return partial
        for name, field in kind.model_fields.items():
            key = field.alias or name
            path = (*at, key)
            key = key if key in data else name
            if path not in self.holds_wrong:
                if key in data:
                    try:
                        kind.__pydantic_validator__.validate_assignment(partial, name, data[key])
                    except ValidationError:  # of an unknown protocol, that all have in common
                        partial.__dict__.pop(name, None)
                continue
            partial.__dict__.pop(name, None)
            if path not in self.wrong:
                value = self._value(field.annotation, data[key], path)
                partial.__dict__ |= {} if value is None else {name: value}
        return partial

    def _value(self, annotation: Any, value: Any, at: KeyPath) -> Any:
        """A model, or a list or mapping of them, in which something is wrong; None for others."""
        kinds = list(_models_in(annotation))
        if not kinds:
            return None
        if isinstance(value, list):
            return [self.model(_kind(kinds, v), v, (*at, i)) for i, v in enumerate(value)]
        if typing.get_origin(annotation) is dict:
            return {k: self.model(_kind(kinds, v), v, (*at, k)) for k, v in value.items()}
        return self.model(_kind(kinds, value), value, at)


def _kind(kinds: list[type[Model]], value: Any) -> type[Model]:
    """Which of these models a value is."""
    if len(kinds) == 1:
        return kinds[0]
    wanted = _tag_of(value, kinds)
    return next((k for k in kinds if wanted in _tags(k)), _common(kinds))


def _common(kinds: list[type[Model]]) -> type[Model]:
    """What models of different types have in common."""
    return next(b for b in kinds[0].__mro__ if all(issubclass(k, b) for k in kinds))


# --- pydantic's errors in our words ----------------------------------------------------------


def _mistakes(
    error: ValidationError, document: Document, root: type[Model], wrong: set[KeyPath]
) -> Iterator[tuple[KeyPath, str, str]]:
    """(key, message, fix) of each key that is wrong and not known to be; adds it to ``wrong``."""
    data = document.data
    found: dict[KeyPath, list[Any]] = {}
    for e in error.errors(include_url=False):
        path = _real_path(e["loc"], data, e["type"] in ("missing", "extra_forbidden"))
        if not document.doubts(path):
            found.setdefault(path, []).append(e)
    # Where something inside is wrong, it is not the other things that might stand there.
    holders = {path[:n] for path in found for n in range(len(path))}
    found = {path: errors for path, errors in found.items() if path not in holders}
    for path, errors in list(found.items()):
        if errors[0]["type"].startswith("union_tag"):
            kind = _common(_models_at(path, data, root))
            found |= _mistakes_of_any_type(path, errors[0]["input"], kind)
    wrong.update(found)
    found = dict(islice(found.items(), MAX_PROBLEMS))
    # A misspelt key is one mistake, not two: the key that is meant is not missing besides.
    meant: set[KeyPath] = set()
    for path, errors in found.items():
        if errors[0]["type"] == "extra_forbidden" and (near := _near(path, data, root)):
            meant.add((*path[:-1], near[0]))
    wrong.update(meant)
    for path, errors in found.items():
        if path in meant and errors[0]["type"] == "missing":
            continue
        texts = dict.fromkeys(_say(e["type"], e["msg"], path, data, root) for e in errors)
        message = ", or ".join(text for text, _ in texts)
        hint = next((hint for _, hint in texts if hint), "")
        value = errors[0].get("input")
        if errors[0]["type"] not in _SAYS_ALL and (shown := _shown(path, value)):
            message += f" (it is {shown})"
        yield path, message, hint


def _mistakes_of_any_type(at: KeyPath, data: Any, kind: type[Model]) -> dict[KeyPath, list[Any]]:
    """What is wrong in an output or a rule, whatever its type may be."""
    try:
        kind.model_validate(data)
    except ValidationError as e:
        of_a_type = ("extra_forbidden", "model_type")
        found = [
            e
            for e in e.errors(include_url=False)
            if e["type"] not in of_a_type and e["loc"] != (_tag_key([kind]),)
        ]
        return {(*at, *_real_path(e["loc"], data, e["type"] == "missing")): [e] for e in found}
    return {}


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


_SAYS_ALL = ("extra_forbidden", "missing", "union_tag_invalid", "union_tag_not_found")


def _say(kind: str, text: str, path: KeyPath, data: Any, root: type[Model]) -> tuple[str, str]:
    """(message, fix) of one pydantic error."""
    if kind == "extra_forbidden":
        if (other := _other_kind(path, data, root)) is not None:
            return f"is a key of `{other[0]}`", f"remove it: this one has `{other[1]}`"
        if near := _near(path, data, root):
            return "unknown key", f"did you mean `{near[0]}`?"
        return "unknown key", f"known keys: {', '.join(sorted(_known_keys(path[:-1], data, root)))}"
    if kind == "missing":
        return "is missing", f"add `{path[-1]}:`"
    if kind.startswith("union_tag"):
        kinds = _models_at(path, data, root)
        key = _tag_key(kinds)
        types = [f"`{key}: {tag}`" for kind in kinds for tag in _tags(kind)]
        words = f"{', '.join(types[:-1])} or {types[-1]}"
        return f"`{key}` is missing or unknown", f"give {words}"
    if kind == "host":
        hint = "host name or address only, e.g. 192.168.0.10; the port stands in `port`"
        return text, hint
    if kind == "string_pattern_mismatch" and "{1,31}" in text:
        return "is no valid name", "2 to 32 of a-z, 0-9, `_`, `-`, beginning with a letter or digit"
    return text.removeprefix("Value error, "), ""


def _shown(path: KeyPath, value: Any) -> str:
    """A value as a message shows it; nothing of what is long in itself or may be a secret."""
    if any(_SECRET_KEYS.search(str(p)) for p in path) or isinstance(value, dict | list):
        return ""
    # The value of a host may hold more than a host: mqtt://user:password@broker.
    if "@" in str(value):
        return ""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "…"


def _near(path: KeyPath, data: Any, root: type[Model]) -> list[str]:
    """The key that was meant by an unknown one, where one is like it."""
    known = sorted(_known_keys(path[:-1], data, root))
    return difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)


def _known_keys(path: KeyPath, data: Any, root: type[Model]) -> set[str]:
    """Which keys the models allow at ``path``."""
    models = _models_at(path, data, root)
    return {f.alias or name for m in models for name, f in m.model_fields.items()}


def _other_kind(path: KeyPath, data: Any, root: type[Model]) -> tuple[str, str] | None:
    """(which other kind an unknown key is of, which this is): ``protocol: s7``. None where it is
    of none.
    """
    for n in range(len(path) - 1, 0, -1):
        kinds = _models_at(path[:n], data, root, any_kind=True)
        these = _models_at(path[:n], data, root)
        if len(kinds) == 1 or len(these) > 1 or (key := _tag_key(kinds)) != "protocol":
            continue
        for kind in kinds:
            if path[-1] in _keys_inside(kind, data, path[:n], path[n:-1]):
                return f"{key}: {_tags(kind)[0]}", f"{key}: {_tags(these[0])[0]}"
    return None


def _keys_inside(kind: type[Model], data: Any, at: KeyPath, inside: KeyPath) -> set[str]:
    """The keys that one kind of model at ``at`` allows at a path within it; none where it has no
    such place.
    """
    for part in at:
        data = data[part]
    for n, part in enumerate(inside):
        if isinstance(part, str) and part not in _known_keys(inside[:n], data, kind):
            return set()
    return _known_keys(inside, data, kind)


def _models_at(
    path: KeyPath, data: Any, root: type[Model], *, any_kind: bool = False
) -> list[type[Model]]:
    """Which models what stands at ``path`` may be; with ``any_kind``, whatever its own type."""
    models: list[type[Model]] = [root]
    for n, part in enumerate(path, 1):
        data = data[part]
        if isinstance(part, int):
            if any_kind and n == len(path):
                continue
            tag = _tag_of(data, models)
            models = [m for m in models if tag is None or tag in _tags(m) or not _tags(m)] or models
            continue
        found = [_annotation(m, part) for m in models]
        models = [m for annotation in found for m in _models_in(annotation)] or models
    return models


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The types (or the protocol) that a model is for; none where it has no such key."""
    field = model.model_fields.get(_tag_key([model]))
    return typing.get_args(field.annotation) if field else ()


def _tag_key(models: Sequence[type[BaseModel]]) -> str:
    """Which key tells these models apart."""
    return "protocol" if "protocol" in models[0].model_fields else "type"


def _tag_of(value: Any, models: Sequence[type[BaseModel]]) -> Any:
    """What a value says that it is; where it does not, what it is then, or None."""
    if not isinstance(value, dict) or not models:
        return None
    key = _tag_key(models)
    field = models[0].model_fields.get(key)
    unsaid = None if field is None or field.is_required() else field.default
    return value.get(key, unsaid)


def _annotation(model: type[BaseModel], key: str) -> Any:
    return next((f.annotation for n, f in model.model_fields.items() if key in (n, f.alias)), None)


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, Model):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
