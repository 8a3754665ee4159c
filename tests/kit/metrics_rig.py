"""The metrics process under a real supervisord, beside idle programs in the others' names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import urllib3

from bus.topology import process_name
from tests.kit.common import ROOT, free_port, until


def metrics_config(
    folder: Path,
    port: int,
    plcs: int = 3,
    groups: int = 2,
    machines: int = 0,
    certificates: list[dict[str, str]] | None = None,
    **panel: Any,
) -> dict[str, Any]:
    """A rendered configuration of ``metrics``, as services/runtime/render.py writes it."""
    names = ["prensa-01", "forno-02", "injetora-03", "torno-04", "esteira-05"]
    ids = [names[i] if i < len(names) else f"maquina-{i + 1:02d}" for i in range(plcs)]
    rows = [
        {
            "id": plc,
            "locatario": "acme",
            "host": f"192.168.0.{10 + i}",
            "heartbeat_s": 10.0,
            "groups": [
                {
                    "name": f"db{500 + g}",
                    "db": 500 + g,
                    "scan_s": 1.0 if g else 0.5,
                    "machines": [f"m{m:02d}" for m in range(machines)]
                    if machines and not g
                    else [None],
                    "trend": [],
                    "units": {
                        "temperatura": "°C",
                        "corrente": "A",
                        "pressao_bar": "bar",
                        "velocidade": "rpm",
                    },
                }
                for g in range(groups)
            ],
        }
        for i, plc in enumerate(ids)
    ]
    outputs: list[dict[str, Any]] = [
        {"name": n, "process": process_name("publisher", n), "type": t, "locatarios": None,
         "from": "now", "strict": False}
        for n, t in (("central", "mqtt"), ("backup", "http"))
    ]  # fmt: skip
    mirrors = [{"name": "copia-db500", "enabled": True}]
    processes = sorted(
        [
            *(process_name("reader", p) for p in ids),
            *(process_name("publisher", o["name"]) for o in outputs),
            process_name("mirror", "copia-db500"),
            "store_forward",
            "metrics",
        ]
    )
    return {
        "process": "metrics",
        "folder": "metrics",
        "item": "",
        "site": "planta-sp",
        "clock_sync": "ignored",
        "locatario": "acme",
        "runtime": str(folder),
        "state": str(folder),
        "metrics": {
            "host": "127.0.0.1",
            "port": port,
            "username": None,
            "password": None,
            "tls": None,
            **panel,
        },
        "processes": processes,
        "plcs": rows,
        "outputs": outputs,
        "mirrors": mirrors,
        "certificates": certificates or [],
        "store_max_bytes": 2 * 2**30,
        "supervisor_socket": str(folder / "supervisor.sock"),
    }


class Rig:
    """supervisord, metrics in it, and the feeder beside it. Use as a context manager."""

    def __init__(
        self, fields: int = 7, fake: dict[str, str] | None = None, feed: bool = True, **config: Any
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.port = free_port()
        self.config = metrics_config(self.folder, self.port, **config)
        self.file = self.folder / "conf" / "metrics.json"
        self.file.parent.mkdir()
        self.file.write_text(json.dumps(self.config))
        self._fields = fields
        # Other commands than the real one, by program: {"mirror-x": "/bin/false"}.
        self._fake = fake or {}
        self._feed = feed
        self.supervisord: subprocess.Popen[bytes] | None = None
        self.feeder: subprocess.Popen[str] | None = None
        scheme = "https" if self.config["metrics"]["tls"] else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.http = urllib3.PoolManager(cert_reqs="CERT_NONE", retries=False)

    def __enter__(self) -> Rig:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        sections = [
            f"[supervisord]\nnodaemon=true\nlogfile={self.folder}/supervisord.log\n"
            f"pidfile={self.folder}/supervisord.pid\nchildlogdir={self.folder}\n"
            f"[unix_http_server]\nfile={self.folder}/supervisor.sock\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory="
            "supervisor.rpcinterface:make_main_rpcinterface\n"
        ]
        for name in self.config["processes"]:
            command = self._fake.get(name, "/bin/sleep 100000")
            if name == "metrics":
                command = f"{sys.executable} -P -m services.metrics --config {self.file}"
            sections.append(
                f"[program:{name}]\ncommand={command}\nstartsecs=1\nstartretries=1000000\n"
                "autorestart=unexpected\nexitcodes=78\nredirect_stderr=true\n"
                f"stdout_logfile={self.folder}/{name}.log\n"
            )
        conf = self.folder / "supervisord.conf"
        conf.write_text("".join(sections))
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.supervisord = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)],
            cwd=self.folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = self.folder / "metrics.log"
        until(lambda: log.exists() and "READY" in log.read_text(), 15, "metrics READY")
        if self._feed:
            self.feeder = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.kit.frames_feeder",
                    str(self.folder),
                    str(self.file),
                    str(self._fields),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self.feeder.stdout is not None
            assert self.feeder.stdout.readline() == "READY\n"

    def __exit__(self, *_: object) -> None:
        self.http.clear()
        for process in (self.feeder, self.supervisord):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for child in (self.feeder, self.supervisord):
            if child is not None:
                try:
                    child.wait(15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe:
                        pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tell(self, **order: Any) -> None:
        """Changes what the feeder says; see tests/kit/frames_feeder.py."""
        assert self.feeder is not None
        assert self.feeder.stdin is not None
        self.feeder.stdin.write(json.dumps(order) + "\n")
        self.feeder.stdin.flush()

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        """One GET."""
        return self.http.request("GET", self.url + path, headers=headers, timeout=5.0)

    def status(self) -> dict[str, Any]:
        """/api/status."""
        document: dict[str, Any] = self.get("/api/status").json()
        return document

    def problem(self, code: str, subject: str = "") -> dict[str, Any] | None:
        """The problem of this code (and subject) that /api/status tells now."""
        for problem in self.status()["problems"]:
            if problem["code"] == code and subject in ("", problem["subject"]):
                return dict(problem)
        return None

    def pid(self, process: str) -> int:
        """The pid that supervisord gave to a program."""
        row = next(p for p in self.status()["processes"] if p["name"] == process)
        return int(row["pid"] or 0)

    def log(self) -> str:
        """What metrics logged."""
        return (self.folder / "metrics.log").read_text()
