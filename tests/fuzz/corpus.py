"""What is fuzzed: every configuration, layout and importer source in the repository."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import openpyxl

from tests.kit.common import ROOT
from tests.kit.markdown import PAGES, blocks

SOURCES = ROOT / "tests" / "unit" / "importers" / "sources"
EXAMPLE = ROOT / "deploy" / "config.example.yaml"
LAYOUTS = ROOT / "deploy" / "layouts"

# The other half of the grammar, in one file: what the example does not use.
EVERYTHING = """\
site: planta-sp
locatario: acme
plcs:
  - id: prensa-01
    host: plc.local
    tsap: {local: "10.00", remote: "03.01"}
    parallel_jobs: 2
    alive: {address: "DB1.DBW0:INT", timeout: 5s}
    groups:
      - &linha
        name: linha
        db: 7
        scan: 500ms
        publish: always
        max_silence: 1h
        raw: {start: 0, length: 400}
        machines: {count: 8, stride: 40, first: 2, name: "m{n:02d}"}
        timestamp: quando
        trend: [nivel]
        fields:
          - {name: nivel, type: INT, offset: 0, scale: {raw: [0, 27648], eu: [0, 100]}}
          - {name: rodando, type: BOOL, offset: 2.3}
          - {name: quando, type: DTL, offset: 4}
          - {name: nome, type: "STRING[10]", offset: 16, encoding: cp1252}
          - {name: eixo, type: "STRUCT[1..2]", fields: [{name: x, type: REAL, deadband: 2%}]}
          - {name: bomba, address: "M10.3"}
      - {<<: *linha, name: outra, db: 8, publish: on_change}
mirrors:
  - name: copia
    source: {plc: prensa-01, group: linha}
    target: {host: 192.168.0.20, db: 600}
    maps: [{from: 0, length: 100, to: 0}, {from: 100, length: 300, to: 200}]
    commit: {begin: 600, end: 602}
    watchdog: {offset: 604}
    max_writes_per_s: 2.5
outputs:
  - name: central
    type: mqtt
    hosts: [a, b]
    tls: false
    port: 1883
    from: oldest
    locatarios: [acme]
  - {name: nuvem, type: http, url: "https://example.com/x", format: influx, headers: {x: y}}
  - {name: console, type: stdout}
store: {max_size: 2GiB, max_age: 5d, commit: 5ms, replay: {mode: lanes, max_rate: 100}}
infra: {plan: {acme: pro}}
"""


@dataclass(frozen=True)
class Seed:
    """An input as it stands in the repository."""

    kind: str
    """config, layout or source."""
    name: str
    content: bytes


def seeds() -> list[Seed]:
    """All of them."""
    found = [
        Seed("config", EXAMPLE.name, EXAMPLE.read_bytes()),
        Seed("config", "everything.yaml", EVERYTHING.encode()),
    ]
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("yaml", "yml"):
                is_layout = block.text.lstrip().startswith(("name:", "record:"))
                kind = "layout" if is_layout else "config"
                found.append(Seed(kind, block.where, block.text.encode()))
    found += [Seed("layout", f.name, f.read_bytes()) for f in sorted(LAYOUTS.glob("*.yaml"))]
    found += [Seed("source", f.name, f.read_bytes()) for f in sorted(SOURCES.iterdir())]
    found.append(Seed("source", "tags.xlsx", _workbook()))
    return found


def _workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Name", "Path", "Data Type", "Logical Address", "Comment"])
    for i in range(8):
        sheet.append([f"bomba_{i}", "Default tag table", "Bool", f"%M{i}.0", "liga"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def suffix(seed: Seed) -> str:
    """The file name extension that says its kind."""
    return Path(seed.name).suffix
