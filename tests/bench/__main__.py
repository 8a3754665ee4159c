"""Every bench, one after another: ``python -m tests.bench [NAME…]``. Reports only.

Each is a module beside this one that prints Markdown tables and compares with a baseline of the
same run where there is one (raw sockets, python-snap7, a bare timer).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

BENCHES: dict[str, list[str]] = {
    "decode": [],
    "read_path": [],
    "reader": ["10"],
    "outbox": [],
    "publisher": ["--box"],
    "drain": ["60"],
    "mirror": ["10"],
    "metrics": [],
}


def main() -> int:
    """Runs what is named, or all; 1 when one could not run."""
    names = sys.argv[1:] or list(BENCHES)
    if unknown := [n for n in names if n not in BENCHES]:
        sys.stderr.write(f"no bench {unknown}; known: {', '.join(BENCHES)}\n")
        return 2
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores,"
          f" load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
    failed = 0
    for name in names:
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, "-m", f"tests.bench.{name}", *BENCHES[name]]
        failed |= subprocess.run(command, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
