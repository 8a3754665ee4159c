"""``plc-edge watch PLC``: live values in the terminal; JSON lines where the output is a pipe."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from services.cli.common import ConfigOption, JsonOption, console, error_console, fail
from services.cli.direct import Batch, Direct, configured
from services.cli.read import table
from services.runtime.errors import PlcUnavailable
from services.runtime.site import Site

RETRY_S = (0.5, 1.0, 2.0, 5.0)
STATE_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Show a PLC's values live, read directly.")(watch)


def watch(
    plc: Annotated[str, typer.Argument(help="Its id in the configuration.")],
    tags: Annotated[
        list[str] | None, typer.Argument(help="Fields or addresses, as for `read`.")
    ] = None,
    config: ConfigOption = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Stop after so long; 0: never.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Reads each group at its own rate until Ctrl-C; exit 1 when nothing could be read at all."""
    site, direct = configured(config, plc, tags or ())
    found = direct.plc
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_s = time.monotonic() + seconds if seconds > 0 else float("inf")
    watcher = Watcher(direct, end_s)
    try:
        if as_json or not console.is_terminal:
            watcher.run(_json_lines(site, direct), _say)
        else:
            with Live(console=console, auto_refresh=False, screen=False) as live:
                watcher.run(
                    lambda _: live.update(_screen(direct, ""), refresh=True),
                    lambda text: live.update(_screen(direct, text), refresh=True),
                )
    except KeyboardInterrupt:
        pass
    finally:
        direct.close()
    if not watcher.scans:
        fail(f"{found.id}: {watcher.trouble}\n    see `plc-edge probe {direct.host}`")


class Watcher:
    """Reads a PLC's batches at their own rates until ``end_s`` (monotonic)."""

    def __init__(self, direct: Direct, end_s: float) -> None:
        self.direct, self.end_s = direct, end_s
        self.scans = 0
        self.trouble = "stopped before anything was read"
        self._failures = 0
        """In a row, since the PLC was last read."""

    def run(self, on_scan: Callable[[Batch], None], on_trouble: Callable[[str], None]) -> None:
        """Reads until the end; reconnects for ever, saying a trouble once."""
        said = ""
        while time.monotonic() < self.end_s:
            try:
                self._connected(on_scan)
            except PlcUnavailable as e:
                self.direct.close()
                for batch in self.direct.batches:
                    for row in batch.rows:
                        row.bad = e.code  # nothing old is shown as good
                self.trouble = e.message
                if e.message != said or not self._failures:
                    on_trouble(e.message)
                said = e.message
                delay_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
                self._failures += 1
                time.sleep(max(0.0, min(delay_s, self.end_s - time.monotonic())))

    def _connected(self, on_scan: Callable[[Batch], None]) -> None:
        direct = self.direct
        session = direct.connect()
        due = [(time.monotonic(), batch) for batch in direct.batches]
        state_due_s = 0.0
        while (now_s := time.monotonic()) < self.end_s:
            if now_s >= state_due_s:
                direct.ask_state()
                state_due_s = now_s + STATE_EVERY_S
            for n, (at_s, batch) in enumerate(due):
                if at_s <= now_s:
                    batch.read(session)
                    self.scans += 1
                    self._failures = 0
                    due[n] = (max(at_s + batch.scan_s, now_s), batch)
                    on_scan(batch)
            next_s = min(min(at_s for at_s, _ in due), self.end_s)
            time.sleep(max(0.0, next_s - time.monotonic()))


def _say(text: str) -> None:
    error_console.print(text, markup=False, highlight=False, soft_wrap=True)


def _json_lines(site: Site, direct: Direct) -> Callable[[Batch], None]:
    tenant, name = site.config.tenant(direct.plc), site.config.site

    def write(batch: Batch) -> None:
        for message in batch.messages(direct, tenant, name):
            sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    return write


def _state(direct: Direct) -> str:
    if direct.state is None:
        return "state not told"
    return "STOP: values are frozen" if direct.stopped else "RUN"


def _screen(direct: Direct, trouble: str) -> Group:
    plc, session = direct.plc, direct.session
    where = f"{plc.id} {direct.host}:{plc.port}"
    if trouble or session is None:
        head = Text(f"{where}  {trouble}", style="red")
    else:
        slowest_ms = max(b.latency_ms for b in direct.batches)
        state = _state(direct)
        head = Text(
            f"{where}  {state}  PDU {session.pdu_bytes}"
            f"  jobs {session.jobs}  {slowest_ms:.1f} ms  Ctrl-C ends"
        )
    return Group(head, table(direct.batches))
