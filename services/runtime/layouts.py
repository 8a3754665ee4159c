"""The fields of each group, from its layout file or its own list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.runtime import files, rules, yaml_lines
from services.runtime.document import Document, KeyPath, undotted
from services.runtime.errors import ConfigError, Problem
from services.runtime.judged import Unknown
from services.runtime.plc_model import GroupBase, PlcBase
from services.runtime.site import Site
from services.s7.field import Field
from services.s7.layout import LayoutError, resolve_inline, resolve_layout
from services.s7.tags import resolve_tags

# Of all groups, each layout as often as it is used: so many are placed in a second.
MAX_FIELDS = 200_000


@dataclass(slots=True)
class _Fields:
    """What came of a group's fields."""

    right: list[Field] = field(default_factory=list)
    names: set[str] | None = None
    """Of all, right or wrong; None where not all are known."""
    problems: list[Problem] = field(default_factory=list)
    whole: bool = True
    """Nothing is wrong in them."""


@dataclass(slots=True)
class _Files:
    """Layout files that were read, each once."""

    documents: dict[Path, Document] = field(default_factory=dict)
    spoilt: dict[tuple[Path, type[PlcBase]], _Fields] = field(default_factory=dict)
    """What came of those in which something is wrong; that was told when it was found."""


def resolve(site: Site) -> Iterator[Problem]:
    """Gives the site the fields of the groups where all are right; says what is wrong."""
    layouts = _Files()
    count = 0
    for at, plc, group in site.groups():
        found = _Fields(whole=False)
        with suppress(Unknown):
            found = _fields(site, plc, group, at, layouts)
        yield from found.problems
        if found.names is not None:
            yield from rules.named_fields(site, at, group, found.right, found.names)
        bytes_problems = list(rules.extent(site, at, group, found.right))
        yield from bytes_problems
        count += len(found.right)
        if count > MAX_FIELDS:
            message = f"the groups up to this one have more than {MAX_FIELDS:,} fields"
            yield site.problem(at, message, "read arrays, or fewer of them")
            return
        if found.whole and not bytes_problems:
            with suppress(Unknown):
                # Where a name stands twice, who names it means the first.
                site.fields.setdefault((plc.id, group.name), found.right)


def _fields(site: Site, plc: PlcBase, group: GroupBase, at: KeyPath, layouts: _Files) -> _Fields:
    # A wrong number of the block says nothing of what lies in it.
    db = getattr(group, "db", 1)
    if group.layout is not None:
        return _from_file(site, site.config.file.parent / group.layout, type(plc), db, at, layouts)
    if group.fields is None:
        return _Fields(whole=False)
    try:
        if plc.tag_keys:
            fields = resolve_tags(group.fields, plc.tag_keys, plc.wrong_tag, is_layout=False)
        else:
            fields = resolve_inline(group.fields, db=db)
    except LayoutError as e:
        return _wrong(e, site.document, (*at, "fields"))
    return _Fields(fields, {f.name for f in fields})


def _from_file(
    site: Site, file: Path, kind: type[PlcBase], db: int | None, at: KeyPath, layouts: _Files
) -> _Fields:
    if (spoilt := layouts.spoilt.get((file, kind))) is not None:
        return spoilt
    if file not in layouts.documents:
        try:
            raw = files.read(file, yaml_lines.MAX_BYTES)
        except files.Unreadable as e:
            hint = "layouts are looked up beside the configuration; import one with"
            hint += " `plc-edge layout import`"
            problem = site.problem((*at, "layout"), f"file {file} {e}", hint)
            return _Fields(problems=[problem], whole=False)
        site.files.append(file)
        try:
            layouts.documents[file] = yaml_lines.decode(raw, str(file))
        except ConfigError as e:
            layouts.spoilt[file, kind] = _Fields(whole=False)
            return _Fields(problems=e.problems, whole=False)
    document = layouts.documents[file]
    try:
        if kind.tag_keys:
            fields = resolve_tags(document.data, kind.tag_keys, kind.wrong_tag, is_layout=True)
        else:
            fields = resolve_layout(document.data, db=db)
    except LayoutError as e:
        found = _wrong(e, document, ())
    else:
        found = _Fields(fields, {f.name for f in fields}, document.problems)
        found.whole = not document.problems
    if not found.whole:
        layouts.spoilt[file, kind] = replace(found, problems=[])
    return found


def _wrong(error: LayoutError, document: Document, base: KeyPath) -> _Fields:
    """A layout's problems with the lines of the file they stand in."""
    problems = [] if base else list(document.problems)
    for p in error.problems:
        path: KeyPath = (*base, *undotted(p.path))
        if not document.doubts(path):
            problems.append(document.problem(path, p.message, p.hint))
    return _Fields(error.fields, error.names, problems, whole=False)
