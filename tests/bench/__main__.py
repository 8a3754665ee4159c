"""Every bench: ``python -m tests.bench [--only NAME…] [--quick] [--rounds N] [--seconds S] [--json
FILE] [--markdown FILE]``. Reports only: nothing here passes or fails but what cannot run.

``--quick`` is the small fixed subset that needs no broker. Linux only; Mosquitto and, for some
baselines, the C snap7 server (tests/kit/c_snap7.py) are needed for the rest.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

from tests.bench.report import HEADER, document, line, machine
from tests.bench.result import Options, Result

QUICK = ("decode", "change", "frames", "outbox", "keep", "scan")
BENCHES = (
    *QUICK, "network", "reader", "new-values", "publisher", "latency", "drain", "mirror",
    "dashboard", "readers", "jitter", "site", "alerts", "alerts-latency", "alerts-live",
    "central-poll", "central-scale", "databases", "opcua", "opcua-server",
    "symbolic", "history-engines", "history",
)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHES,
                        help=f"of {', '.join(BENCHES)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, few rounds")
    parser.add_argument("--rounds", type=int, help="how often each comparison is repeated")
    parser.add_argument("--seconds", type=float, help="how long each whole-box run lasts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args()


def load(name: str) -> ModuleType:
    """The module of a bench."""
    return importlib.import_module(f"tests.bench.{name.replace('-', '_')}")


def save(file: Path, content: dict[str, object]) -> None:
    """As JSON; raises ValueError for what JSON cannot say."""
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def main() -> int:
    """Runs what is asked for; 1 when a bench could not run."""
    args = arguments()
    options = Options(args.quick, args.rounds, args.seconds)
    where = machine()
    title = (f"{where['cores']} cores, Python {where['python']}, {where['system']},"
             f" {where['date']}, load average {where['load_average'][0]}")  # fmt: skip
    text = [f"{title}\n", HEADER]
    print(*text, sep="\n", flush=True)
    results: list[Result] = []
    failed: list[str] = []
    for name in args.only or (QUICK if args.quick else BENCHES):
        begin_s = time.monotonic()
        try:
            for result in load(name).bench(options):
                results.append(result)
                text.append(line(result))
                print(text[-1], flush=True)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        sys.stderr.write(f"{name}: {time.monotonic() - begin_s:.1f} s\n")
        if args.markdown:  # after each: a long run that is stopped leaves what it has
            args.markdown.write_text("\n".join(text) + "\n")
        if args.json:
            save(args.json, document(where, results, failed))
    if failed:
        sys.stderr.write(f"could not run: {', '.join(failed)}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
