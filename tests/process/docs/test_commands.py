"""Every fenced shell command of README and docs/ is run, against a whole site with simulated PLCs
and a real broker, or says above its block what it needs that a test does not have:

    <!-- needs: hardware -->     a PLC, or a second computer
    <!-- needs: root -->         changes the machine
    <!-- needs: network -->      installs packages
    <!-- needs: central -->      broker, database and dashboards of the central platform

A command whose program is in none of the tables below fails, marked or not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime import panel
from tests.kit.box import Box
from tests.kit.common import ROOT, free_ports, until
from tests.kit.markdown import PAGES, SHELL, Block, blocks, spans

NEEDS = ("hardware", "root", "network", "central")
# What the docs call it -> what it is in the test. Longest first, each place once.
SUBSTITUTIONS = {
    "/var/lib/plc-edge": "{folder}/s",
    "/run/plc-edge": "{folder}/r",
    "/etc": "{folder}/etc",
    "/srv": "{folder}/srv",
    "/tmp/": "{folder}/tmp/",
    ".venv/bin/plc-edge": "plc-edge",
    "probe 192.168.0.10": "probe 127.0.0.1 --port {plc_port}",
    "127.0.0.1:9108": "127.0.0.1:{metrics_port}",
    "--port-base 10200": "--port-base {free_port}",
}
OURS = ("plc-edge", "supervisorctl", "/opt/plc-edge/current/install.sh")
OURS_IN = ("deploy/",)
TOOLS = ("cat", "curl", "df", "diff", "du", "find", "grep", "ls", "tail", "tar")
# Only in blocks that are not run.
NOT_RUN = (
    "docker",
    "journalctl",
    "mosquitto_ctrl",
    "nc",
    "ping",
    "reboot",
    "systemctl",
    "timedatectl",
    "chmod",
    "chown",
    "cp",
    "tee",
    "python3",
    ".venv/bin/pip",
    "pip",
)
# They go on until somebody stops them: what shows that they work, then SIGINT.
ENDLESS = ("plc-edge run", "plc-edge simulate", "plc-edge demo$")
COMMAND_S = 90
# Pages whose numbered steps carry commands in running text.
STEPS = ("README.md", "LEIAME.md")

SOURCE = """\
DATA_BLOCK "DB500"
{ S7_Optimized_Access := 'FALSE' }
VERSION : 0.1
   STRUCT
      pecas_ruim : Bool;
      pecas_boas : Bool;
      maquina_ligada : Bool;
      AI_Corrente : Real;
      AI_Vibracao : Real;
      contador_bom : Int;
      contador_ruim : Int;
   END_STRUCT;
BEGIN
END_DATA_BLOCK
"""

RULES = """\
rules:
  - {name: alta, type: threshold, where: {field: AI_Corrente}, above: 80, for: 30s}
"""

# A rule of this name is acknowledged and silenced.
ALERTS = {"rules": [{"name": "sobrecorrente", "type": "absence", "for": "1h"}]}

SHELL_BLOCKS = [b for page in PAGES for b in blocks(page) if b.language in SHELL]


def program(command: str) -> str:
    """The program that a command line starts."""
    words = [w for w in command.split() if not re.fullmatch(r"[A-Z_]+=\S*", w)]
    if words[0] == "sudo":
        words = words[3:] if words[1] == "-u" else words[1:]
    return words[0].removeprefix(".venv/bin/")


def needs(block: Block) -> str:
    """What a block says that it needs; fails for a word that nobody knows."""
    if not block.marker.startswith("needs:"):
        return ""
    need = block.marker.removeprefix("needs:").strip()
    assert need in NEEDS, f"{block.where}: `needs: {need}`; known: {', '.join(NEEDS)}"
    return need


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda b: b.where)
def test_every_program_is_known(block: Block) -> None:
    known = {*OURS, *TOOLS, *(NOT_RUN if needs(block) else ())}
    for command in block.commands():
        name = program(command)
        assert name in known or name.startswith(OURS_IN), f"{block.where}: {command}"
        if name.startswith("deploy/"):
            assert os.access(ROOT / name, os.X_OK), f"{block.where}: {name} cannot be run"


def test_unfenced_languages() -> None:
    """A block without a language, or in another, does not hide a command."""
    for page in PAGES:
        for block in blocks(page):
            if block.language not in SHELL:
                found = re.search(r"(?m)^\$? ?(sudo |plc-edge [a-z]|deploy/)", block.text)
                assert not found, f"{block.where}: fence it as sh"


class Plant:
    """The site that the commands of one page run against."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.folder = box.site.folder
        self._prepare()
        self.values = {
            "folder": str(self.folder),
            "plc_port": str(box.config["plcs"][0]["port"]),
            "metrics_port": str(box.config["metrics"]["port"]),
            "free_port": str(free_ports(1)[0]),
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        # A box's own /etc/plc-edge on the machine that tests is none of ours.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PLC_EDGE")}
        own = {"PATH": path, "PYTHONPATH": str(ROOT), "PLC_EDGE_CONFIG": str(box.site.file)}
        self.env = {**clean, **own}

    def _prepare(self) -> None:
        etc = self.folder / "etc" / "plc-edge"
        for name in ("tmp", "srv", "etc/plc-edge/caixas", "layouts"):
            (self.folder / name).mkdir(parents=True)
        (etc / "config.yaml").symlink_to(self.folder / "config.yaml")
        shutil.copy(ROOT / "deploy" / "config.example.yaml", etc / "caixas" / "planta-sp.yaml")
        shutil.copytree(ROOT / "deploy" / "layouts", etc / "caixas" / "layouts")
        (self.folder / "deploy").symlink_to(ROOT / "deploy")
        for name in ("Block.db", "Bloco.db"):
            (self.folder / name).write_text(SOURCE)
        (self.folder / "regras.yaml").write_text(RULES)
        manual = ROOT / "docs" / "ESPECIFICACAO_MOTOR_ALERTAS.md"
        recorded = next(b.text for b in blocks(manual) if b.text.startswith('{"topic"'))
        (self.folder / "mensagens.jsonl").write_text(recorded)
        pki = [ROOT / "deploy" / "scripts" / "pki.sh", self.folder / "pki"]
        for words in (["create"], ["server", "broker.example.com", "broker.example.com"]):
            subprocess.run([*pki, *words], check=True, capture_output=True, timeout=30)

    def resolve(self, command: str) -> str:
        """The command with the test's names."""
        names = sorted(SUBSTITUTIONS, key=len, reverse=True)
        # A path is replaced where it begins, not in the middle of another.
        pattern = "|".join(rf"(?<![\w.]){re.escape(n)}" for n in names)
        return re.sub(pattern, lambda m: SUBSTITUTIONS[m[0]].format(**self.values), command)

    def wait_ready(self) -> None:
        """Returns when every process runs, every PLC is read and its history has begun."""

        def ready() -> bool:
            try:
                there = panel.ask(self.box.site.runtime, "/api/history/series")["count"]
                return bool(there and panel.ask(self.box.site.runtime, "/readyz")["ready"])
            except panel.MetricsUnavailable:
                return False

        until(ready, 30, lambda: f"the site is ready\n{self.box.site.logs()}")

    def run(self, command: str) -> str:
        """Runs one; returns what is wrong with how it went, empty when nothing."""
        self.wait_ready()
        line = self.resolve(command)
        if any(re.match(pattern, command) for pattern in ENDLESS):
            return self._interrupted(line)
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.env, timeout=COMMAND_S,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = f"{done.stdout[-1500:]}{done.stderr[-1500:]}"
        if done.returncode or "Traceback" in said:
            return f"`{line}` exits {done.returncode}:\n{said}"
        return ""

    def _interrupted(self, line: str) -> str:
        # `run` beside the site that runs: with directories, a port and a name of its own. With the
        # other's name it is the same client at the broker, and `doctor` says that two take turns.
        other = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        env = {
            **self.env,
            "PLC_EDGE__SITE": "outro",
            "PLC_EDGE__PATHS__STATE": str(other / "s"),
            "PLC_EDGE__PATHS__RUNTIME": str(other / "r"),
            "PLC_EDGE__METRICS__PORT": str(free_ports(1)[0]),
        }
        log = other / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                line.split(), cwd=self.folder, env=env, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            until(lambda: _works(other) or process.poll() is not None, 30, line)
            started = _works(other)
            process.send_signal(signal.SIGINT)
            code = process.wait(20)
            said = log.read_text()[-1500:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            shutil.rmtree(other, ignore_errors=True)
        if not started or code not in (0, 130):
            return f"`{line}` exits {code}:\n{said}"
        return ""


def _works(folder: Path) -> bool:
    """Whether `run` has its supervisord, or `simulate` says READY."""
    return (folder / "r" / "supervisor.sock").exists() or "READY" in (folder / "log").read_text()


@pytest.fixture
def plant() -> Iterator[Plant]:
    with Box(plcs=1, alerts=ALERTS, history={}) as box:
        yield Plant(box)


def _run(page: Path) -> list[str]:
    """The commands of a page that are run: in blocks, and in the steps of the first pages."""
    found = [c for b in blocks(page) if b.language in SHELL and not needs(b) for c in b.commands()]
    if page.name in STEPS:
        found += [s for s in spans(page) if re.match(r"(\.venv/bin/)?plc-edge [a-z]", s)]
    return list(dict.fromkeys(found))


WITH_COMMANDS = [page for page in PAGES if _run(page)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.name)
def test_commands_run(page: Path, plant: Plant) -> None:
    """In the order of the page, each must end with 0."""
    for command in _run(page):
        wrong = plant.run(command)
        assert not wrong, wrong


def test_a_failing_command_is_noticed(plant: Plant) -> None:
    assert "exits 2" in plant.run("plc-edge read ninguem --nada")


def test_pages_with_commands() -> None:
    """The pages that plant staff use carry commands that are run, not only marked ones."""
    names = {page.name for page in WITH_COMMANDS}
    assert {"OPERACOES.md", "CHECKLIST_EDGE_BOX.md", "DB500_LAYOUT.md"} <= names
