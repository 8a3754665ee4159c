"""A protocol of the tests: what a PLC of tags has in the configuration, beside S7."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from services.protocols.s7.model import S7Plc
from services.runtime import layouts, rules, yaml_lines
from services.runtime.base_model import Model, one_of
from services.runtime.config import Config
from services.runtime.plc_model import Files, GroupBase, PlcBase
from services.runtime.site import Site
from services.runtime.validate import validate


class Doors(Model):
    closed: bool = True


class ToyGroup(GroupBase):
    mode: Literal["scan", "subscribe"] = "scan"

    def rendered(self, plc: PlcBase) -> dict[str, Any]:
        return {"mode": self.mode}


class ToyPlc(PlcBase):
    protocol: Literal["toy"] = "toy"
    port: int = 4_321
    doors: Doors | None = None
    groups: list[ToyGroup] = Field(min_length=1)
    tag_keys: ClassVar[tuple[str, ...]] = ("node", "member")

    @classmethod
    def wrong_tag(cls, tag: Mapping[str, str]) -> tuple[str, str, str] | None:
        if "=" in tag["node"]:
            return None
        return "node", f"{tag['node']!r} is no node", "write `n=NAME`"

    def rendered(self, files: Files) -> dict[str, Any]:
        return {"port": self.port, "file": files.beside(Path("trust.pem"))}


class Box(Config):
    plcs: list[one_of((S7Plc, ToyPlc), "protocol")] = Field(min_length=1)  # type: ignore[valid-type]


def plc(**more: Any) -> dict[str, Any]:
    fields = [{"name": "t", "node": "n=t", "type": "REAL", "unit": "°C", "deadband": 0.5}]
    return {"id": "p1", "host": "h", "protocol": "toy",
            "groups": [{"name": "g1", "mode": "subscribe", "fields": fields}], **more}  # fmt: skip


def judge(folder: Path, *plcs: dict[str, Any], **more: Any) -> tuple[Site, list[str]]:
    """The site, and what is wrong: ``key: message [fix]``."""
    file = folder / "config.yaml"
    data = {"site": "s1", "locatario": "acme", "plcs": list(plcs), **more}
    file.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    document = yaml_lines.load(file)
    config, problems = validate(document, Box)
    config._file = file
    site = Site(config, {}, [file], document)
    problems += [*layouts.resolve(site), *rules.broken(site)]
    return site, [f"{p.key}: {p.message} [{p.hint}]" for p in problems]
