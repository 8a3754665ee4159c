"""Benches beside baselines: ``python -m tests.bench [--only NAME…] [--quick] [--json FILE]``.

Prints one Markdown table. Reports only: it fails when a bench cannot run, never by a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench import scan
from tests.bench.table import Figure, markdown

BENCHES = {"scan": scan.measure}


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), default=list(BENCHES))
    parser.add_argument("--quick", action="store_true", help="a small fixed subset")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    began_s, load = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    for name in args.only:
        figures += BENCHES[name](args.quick)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load_before": load,
               "seconds": round(time.monotonic() - began_s, 1)}  # fmt: skip
    sys.stdout.write(f"{markdown(figures)}\n\n{json.dumps(machine)}\n")
    if args.json:
        result = {"machine": machine, "figures": [asdict(f) for f in figures]}
        args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
