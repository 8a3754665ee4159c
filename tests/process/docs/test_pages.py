"""README and docs/: links lead somewhere, YAML is what the configuration takes, and commands in
running text name verbs, options and files that exist.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from services.cli.main import app
from services.runtime import central_config, loader
from services.runtime.errors import ConfigError
from services.s7.layout import resolve_layout
from tests.kit.common import ROOT
from tests.kit.markdown import PAGES, SHELL, anchors, blocks, links, spans

BASE = {
    "site": "planta-sp",
    "locatario": "acme",
    "plcs": [
        {
            "id": "base-01",
            "host": "192.168.0.9",
            "groups": [{"name": "base", "fields": [{"name": "a", "address": "M0.0"}]}],
        }
    ],
}
# Layouts that a page tells its reader to import first.
IMPORTED = ("Block.yaml", "Bloco.yaml")
# Made on a machine by a script, not part of the repository.
MADE_LATER = ("deploy/secrets",)
CLI = typer.main.get_command(app())

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@each_page
def test_relative_links(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@each_page
def test_yaml_is_valid(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy" / "layouts", tmp_path / "layouts")
    for name in IMPORTED:
        shutil.copy(tmp_path / "layouts" / "db500.yaml", tmp_path / "layouts" / name)
    for block in blocks(page):
        if block.language in ("yaml", "yml") and block.marker != "planned":
            _check_yaml(block.where, yaml.safe_load(block.text), tmp_path)


def _check_yaml(where: str, data: dict[str, Any], folder: Path) -> None:
    if "record" in data:
        assert resolve_layout(data, db=None), where
        return
    if "database" in data:
        (folder / "central.yaml").write_text(yaml.safe_dump(data))
        for name in ("oidc.secret",):  # of which the page says how to make it
            (folder / name).touch()
        central_config.load(folder / "central.yaml", {})
        return
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**BASE, **data}, allow_unicode=True))
    try:
        loader.load(file, {}, check_secrets=False)
    except ConfigError as e:
        raise AssertionError(f"{where}:\n" + "\n".join(map(str, e.problems))) from None


def test_a_wrong_key_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="did you mean"):
        _check_yaml("here", {"store": {"max_sise": "2GiB"}}, tmp_path)


@each_page
def test_commands_in_text(page: Path) -> None:
    texts = spans(page)
    texts += [c for b in blocks(page) if b.language in SHELL for c in b.commands()]
    wrong = [problem for text in texts if (problem := wrong_with(text))]
    assert not wrong


def wrong_with(text: str) -> str:
    """What a command names that does not exist; empty when all is well or it is no command."""
    words = re.split(r"\s+", text.removeprefix("sudo "))
    if words[0].startswith("deploy/"):
        there = (ROOT / words[0]).exists() or words[0] in MADE_LATER
        return "" if there else f"no file {words[0]}"
    if words[0].removeprefix(".venv/bin/") != "plc-edge" or len(words) == 1:
        return ""
    command: Any = CLI
    rest = words[1:]
    # A group of verbs; typer brings a click of its own, so its class says nothing here.
    while hasattr(command, "commands") and rest and re.match(r"[a-z]", rest[0]):
        name = rest.pop(0)
        verbs = name.split("|")
        if unknown := set(verbs) - set(command.commands):
            return f"`{text}`: no verb {', '.join(unknown)}"
        command = command.commands[verbs[0]]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    for word in rest:
        if word in ("|", "&&", ";", "||", ">", "2>"):
            break
        option = word.partition("=")[0]
        # "-" alone is a pipe's end.
        if option.startswith("-") and option not in (*known, "-"):
            return f"`{text}`: no option {option}"
    return ""


@pytest.mark.parametrize(
    "text", ["plc-edge statos", "plc-edge store purge --all", "sudo deploy/instal.sh"]
)
def test_a_wrong_command_is_noticed(text: str) -> None:
    assert wrong_with(text)
