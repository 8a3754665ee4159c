"""``plc-edge layout import FILE…``: TIA Portal and STEP 7 sources to layout files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from services.cli.common import ConfigOption, JsonOption, error_console, fail, print_each
from services.runtime.errors import EXIT_USAGE
from services.s7.importers.collect import collect
from services.s7.importers.layouts import Layout, layouts
from services.s7.importers.model import SourceError


def register(app: typer.Typer) -> None:
    """Adds ``layout import``."""
    group = typer.Typer(help="Layout files from TIA Portal and STEP 7.", no_args_is_help=True)
    group.callback()(_group)
    group.command(
        "import",
        help="Make layout files of .db, .udt, .scl, .awl, .xml, .xlsx, .csv, .sdf, .asc and .json.",
    )(layout_import)
    app.add_typer(group, name="layout")


def _group() -> None:
    """A callback keeps `import` a command of its own where it is the only one."""


def layout_import(
    files: Annotated[list[Path], typer.Argument(help="Sources; UDTs may stand in any of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder, or one .yaml file; default: print.")
    ] = None,
    block: Annotated[
        str | None, typer.Option("--block", help="Only this block, by name or number.")
    ] = None,
    machines: Annotated[
        str | None,
        typer.Option("--machines", help="This array of structures becomes one layout per element."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", help="Code page of sources that are not Unicode, e.g. cp932."),
    ] = None,
    type_bytes: Annotated[
        list[str] | None,
        typer.Option("--type-bytes", help="NAME=N: a system type without source takes N bytes."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Computes offsets by the classic rules and says which lines the configuration takes."""
    sizes = dict(_type_bytes(text) for text in type_bytes or ())
    try:
        b"".decode(encoding or "utf-8")
    except (LookupError, UnicodeError):
        fail(f"--encoding {encoding}: unknown; e.g. cp1250, cp1251, cp932, cp936", EXIT_USAGE)
    try:
        found = layouts(collect(files, encoding, sizes), block, machines)
    except SourceError as e:
        print_each([str(p) for p in e.problems])
        count = len(e.problems)
        fail(f"{count} problem{'s' if count > 1 else ''} found, nothing written", EXIT_USAGE)
    if not found:
        fail("these files declare no data block and no tag with an address", EXIT_USAGE)
    for layout in found:
        print_each([f"note: {note}" for note in layout.notes])
    if out is not None:
        _write(found, out)
    if as_json:
        json.dump([_as_json(layout) for layout in found], sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    elif out is None:
        sys.stdout.write("---\n".join(to_yaml(layout) for layout in found))
    for layout in found:
        error_console.print(
            _advice(layout, out, config), markup=False, highlight=False, soft_wrap=True
        )


def _type_bytes(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name.strip() or not size.strip().isdecimal():
        fail(f"--type-bytes {text}: NAME=N is expected, e.g. R_TRIG=6", EXIT_USAGE)
    return name.strip().strip('"'), int(size)


def _write(found: list[Layout], out: Path) -> None:
    one_file = out.suffix.lower() in (".yaml", ".yml")
    if one_file and len(found) > 1:
        names = ", ".join(layout.title for layout in found)
        message = f"{len(found)} layouts ({names}) need a folder; or choose one with --block"
        fail(message, EXIT_USAGE)
    try:
        (out.parent if one_file else out).mkdir(parents=True, exist_ok=True)
        for layout in found:
            file = out if one_file else out / f"{layout.name}.yaml"
            file.write_text(to_yaml(layout), encoding="utf-8")
    except OSError as e:
        fail(f"{e.filename}: cannot be written: {e.strerror}")


def to_yaml(layout: Layout) -> str:
    """The layout file: one field per line."""
    head: dict[str, Any] = {}
    if not layout.addressed:
        head["name"] = layout.name
        if layout.record_bytes is not None:
            head["record"] = layout.record_bytes
    lines = [f"# {' '.join(layout.title.split())}, made by plc-edge layout import"]
    lines += [f"{key}: {_flow(value)}" for key, value in head.items()]
    lines.append("fields:")
    lines += [f"  - {_flow(field)}" for field in layout.fields]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    dumped = yaml.dump(
        value,
        Dumper=yaml.CSafeDumper,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=2**31 - 1,
    )
    return str(dumped).removesuffix("...\n").strip()


def _as_json(layout: Layout) -> dict[str, Any]:
    return {
        "name": layout.name,
        "title": layout.title,
        "db": layout.db,
        "record": layout.record_bytes,
        "machines": layout.machines,
        "fields": layout.fields,
        "notes": layout.notes,
    }


def _advice(layout: Layout, out: Path | None, config: Path | None) -> str:
    """The group for config.yaml; a layout is looked up beside the configuration."""
    folder = out if out is not None else Path("layouts")
    file = str(folder if folder.suffix else folder / f"{layout.name}.yaml")
    if config is not None and out is not None:
        file = os.path.relpath(file, config.parent)
    lines = [f"\n{layout.title}: {len(layout.fields)} fields. Add to the PLC's `groups:`"]
    lines.append(f"      - name: {layout.name}")
    if layout.addressed:
        lines.append("        scan: 1s")
        lines.append(f"        fields: …the list in {file}")
        return "\n".join(lines)
    number = layout.db if layout.db is not None else "…  # the source does not say its number"
    lines.append(f"        db: {number}")
    lines.append("        scan: 1s")
    lines.append(f"        layout: {file}")
    if layout.machines is not None:
        m = layout.machines
        lines.append(
            f"        machines: {{count: {m['count']}, stride: {m['stride']}, first: {m['first']}}}"
        )
    return "\n".join(lines)
