"""A whole box: a real reader reads one PLC, a mirror writes another."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from services.runtime.panel import ask
from tests.kit.common import free_ports, until
from tests.kit.fake_plc import FakePlc
from tests.kit.site import Site

SIZE = 500
WATCHDOG = SIZE + 4


def config(source: int, target: int) -> dict[str, Any]:
    group = {"name": "db500", "db": 500, "scan": "50ms", "raw": {"start": 0, "length": SIZE},
             "fields": [{"name": "n", "address": "DB500.DBW0:INT"}]}  # fmt: skip
    mirror = {
        "name": "copia", "enabled": True, "source": {"plc": "prensa-01", "group": "db500"},
        "target": {"host": "127.0.0.1", "port": target, "db": 600},
        "commit": {"begin": SIZE, "end": SIZE + 2}, "watchdog": {"offset": WATCHDOG},
        "stale_after": "500ms", "timeout": "1s",
    }  # fmt: skip
    return {
        "site": "s1", "locatario": "acme", "mirrors": [mirror],
        "plcs": [{"id": "prensa-01", "host": "127.0.0.1", "port": source, "timeout": "500ms",
                  "groups": [group]}],
        "outputs": [{"name": "console", "type": "stdout"}],
        "metrics": {"port": free_ports(1)[0]},
    }  # fmt: skip


def test_reader_to_target() -> None:
    """Copies follow; each way in which the source goes is told to the target; a reader never
    sends a write."""
    generator = random.Random(3)
    mine, copy = bytearray(generator.randbytes(SIZE)), bytearray(b"\x5a" * (SIZE + 50))
    with (
        FakePlc({500: mine}) as source,  # not one byte of it is writable
        FakePlc({600: copy}, writable={600: (0, WATCHDOG + 1)}) as target,
        Site(config(source.port, target.port)) as site,
    ):
        site.wait_running()

        def copied() -> bool:
            whole = copy[SIZE : SIZE + 2] == copy[SIZE + 2 : SIZE + 4]
            return copy[:SIZE] == mine and whole and copy[WATCHDOG] == 1

        for _ in range(20):
            at = generator.randrange(SIZE - 40)
            mine[at : at + 40] = generator.randbytes(40)
            until(copied, 10, lambda: f"copied\n{site.logs()}")

        shown = bytes(copy[:SIZE])
        source.down()  # the source's cable
        until(lambda: copy[WATCHDOG] == 0, 10, lambda: f"stale\n{site.logs()}")
        mine[:4] = b"gone"
        assert copy[:SIZE] == shown
        source.up()
        until(copied, 20, lambda: f"copied again\n{site.logs()}")

        source.denied.add((500, 200, 210))  # part of the block
        until(lambda: copy[WATCHDOG] == 0, 10, lambda: f"bad\n{site.logs()}")
        source.denied.clear()
        until(copied, 90, lambda: f"copied again\n{site.logs()}")

        pid, _ = site.kill("reader-prensa-01")
        until(lambda: copy[WATCHDOG] == 0, 10, lambda: f"reader killed\n{site.logs()}")
        site.wait_back("reader-prensa-01", pid)
        until(copied, 20, lambda: f"copied again\n{site.logs()}")

        pid, _ = site.kill("mirror-copia")
        mine[:4] = os.urandom(4)
        site.wait_back("mirror-copia", pid)
        until(copied, 20, lambda: f"copied again\n{site.logs()}")

        def told() -> dict[str, Any] | None:
            found: dict[str, Any] = ask(site.runtime)["mirrors"][0]
            return found if found["status"] == "ok" and found["bytes"] else None

        found = until(told, 10, "the mirror's line in /api/status")
        assert found["lag_ms"] < 10_000
        assert abs(found["last_write_ms"] / 1_000 - time.time()) < 60
        assert (found["mismatches"], found["refusals"]) == (0, 0)
        text = site.run("status").stdout
        assert "lag ms" in text
        assert site.stop() == 0
        assert copy[WATCHDOG] == 0
        assert source.violations == []
        assert target.violations == []
        assert set(copy[WATCHDOG + 1 :]) == {0x5A}
        log = (site.state / "mirror-copia.audit.jsonl").read_text().splitlines()
        kinds = {json.loads(line)["what"] for line in log}
        assert kinds == {"start", "stop", "full_write", "watchdog"}
