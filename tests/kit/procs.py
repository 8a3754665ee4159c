"""A service process for a test: started with its own configuration, READY awaited, stderr kept,
killed at the end whatever happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.common import BUSY_S, ROOT, until


class Service:
    """One running ``python -P -m services.<folder>``, or one of the kit's own."""

    def __init__(
        self,
        config: dict[str, Any],
        env: dict[str, str] | None = None,
        stdout: int | None = None,
        package: str = "services",
    ) -> None:
        folder = Path(config["runtime"]) / "conf"
        folder.mkdir(exist_ok=True, parents=True)
        self.file = folder / f"{config['process']}.json"
        self.configure(config)
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        command = [sys.executable, "-P", "-m", f"{package}.{config['folder']}"]
        self.process = subprocess.Popen(
            [*command, "--config", str(self.file)],
            stderr=subprocess.PIPE,
            stdout=stdout,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def configure(self, config: dict[str, Any]) -> None:
        """Writes the rendered configuration, whole."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.rename(self.file)

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self.text.append(line)
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                continue

    @property
    def pid(self) -> int:
        return self.process.pid

    def stderr(self) -> str:
        """The last lines."""
        return "\n".join(self.text[-40:])

    def said(self, text: str) -> bool:
        """Whether a log line contains ``text``."""
        return any(text in line for line in list(self.text))

    def wait_said(self, text: str) -> None:
        """The same of a line that may be read after what it says has shown elsewhere."""
        until(lambda: self.said(text), BUSY_S, lambda: f"{text!r} is not said\n{self.stderr()}")

    def wait_ready(self, timeout_s: float = 15) -> None:
        """Returns at the READY line."""

        def ready() -> bool:
            if self.process.poll() is not None:
                self._reader.join(5)  # what it has said may not have been read yet
                assert self.said('"READY"'), self.stderr()
            return self.said('"READY"')

        until(ready, timeout_s, self.stderr)

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout_s: float = 8) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """Kills it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)


@contextmanager
def service(
    config: dict[str, Any],
    env: dict[str, str] | None = None,
    stdout: int | None = None,
    package: str = "services",
) -> Iterator[Service]:
    """Starts one, waits for READY, kills it at the end."""
    running = Service(config, env, stdout, package)
    try:
        running.wait_ready()
        yield running
    except BaseException:
        sys.stderr.write(running.stderr() + "\n")
        raise
    finally:
        running.end()
