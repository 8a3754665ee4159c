"""Results as one Markdown table and one JSON document."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tests.bench.result import Result


def machine() -> dict[str, Any]:
    """Where and when, and how busy it was before anything of ours ran."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def document(
    where: Mapping[str, Any], results: Iterable[Result], failed: Iterable[str] = ()
) -> dict[str, Any]:
    """The JSON document; ``failed`` are the benches that could not run."""
    return {
        "machine": dict(where),
        "failed": list(failed),
        "results": [asdict(r) for r in results],
    }


HEADER = (
    "| bench | case | unit | plc-edge | baseline | its | ratio | lowest to highest | rounds |"
    "\n|---|---|---|---:|---|---:|---:|---|---:|"
)


def line(r: Result) -> str:
    """One row of the Markdown table."""
    baseline = "" if r.baseline is None else number(r.baseline)
    ratio = "" if r.ratio is None else number(r.ratio)
    spread = f"{number(r.spread[0])} to {number(r.spread[1])}" if r.rounds > 1 else ""
    cells = (r.bench, r.case, r.unit, number(r.ours), r.baseline_name or "", baseline, ratio)
    return f"| {' | '.join((*cells, spread, str(r.rounds)))} |"


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"
