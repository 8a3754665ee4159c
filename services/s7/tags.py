"""Fields that are tags of a PLC or server, not bytes at an address: from a layout or a group's own
list -> ``Field`` in area TAG.

A tag is named by one key (``node``, ``symbol``), beside which others may stand (``member``); what
they may hold is the protocol's business. Its type is written as everywhere; the value that comes
must be one of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.s7.field import Field
from services.s7.layout import Walk
from services.s7.types import TypeNameError, parse_type

_OPTIONS = {"name", "description", "type", "unit", "scale", "deadband"}
_LAYOUT_KEYS = {"name", "description", "fields"}
# What only fields that lie in memory have.
_MEMORY = ("address", "offset", "fields", "array", "encoding")

WrongTag = Callable[[Mapping[str, str]], tuple[str, str, str] | None]
"""(key, what is wrong with it, the fix) of a tag; None where nothing is."""


def resolve_tags(
    given: Any, keys: Sequence[str], wrong_tag: WrongTag, *, is_layout: bool
) -> list[Field]:
    """The fields of a layout file (``is_layout``: a mapping with ``fields:``) or of a group's own
    list. ``keys``: the one that names the tag, then those that may stand beside it. Raises
    LayoutError with every problem.
    """
    walk = Walk(0)
    path = "fields" if is_layout else ""
    if is_layout and not isinstance(given, dict):
        walk.bad("", "is no layout", "begin with `name:` and `fields:`")
        return walk.done()
    if is_layout:
        if "record" in given:
            hint = "this layout is of an S7 block; `plc-edge browse` makes one of tags"
            walk.bad("record", "tags lie in no record", hint)
        walk.unknown_keys({k: v for k, v in given.items() if k != "record"}, _LAYOUT_KEYS, "")
        given = given.get("fields")
    if not isinstance(given, list) or not given:
        walk.names = None
        walk.bad(path, "holds no field", f"list at least one {{name, {keys[0]}, type}}")
        return walk.done()
    for i, member in enumerate(given):
        _tag(walk, member, f"{path}[{i}]", keys, wrong_tag)
    return walk.done()


def _tag(walk: Walk, member: Any, path: str, keys: Sequence[str], wrong_tag: WrongTag) -> None:
    if isinstance(member, dict) and (found := next((k for k in _MEMORY if k in member), None)):
        walk.wrong(str(member.get("name")))
        hint = f"remove it; a tag is given by `{keys[0]}:` and `type:`"
        walk.bad(f"{path}.{found}", "is for `protocol: s7`: tags have no address", hint)
        return
    if not walk.is_member(member, path, {*_OPTIONS, *keys}, keys[0]):
        return
    name = str(member["name"])
    tag = {k: str(member[k]) for k in keys if member.get(k) is not None}
    if (wrong := wrong_tag(tag)) is not None:
        key, message, hint = wrong
        walk.wrong(name)
        walk.bad(f"{path}.{key}", message, hint)
        return
    if member.get("type") is None:
        walk.wrong(name)
        walk.bad(path, "`type` is missing", "add `type:`, e.g. REAL, DINT, STRING, INT[1..4]")
        return
    try:
        kind = parse_type(str(member["type"]))
    except TypeNameError as e:
        walk.wrong(name)
        walk.bad(f"{path}.type", str(e), e.hint)
        return
    walk.add(Field(name, str(kind), "TAG", tag=tag), member, path, firm=True)
