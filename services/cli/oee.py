"""``plc-edge oee`` and ``plc-edge shifts``: what machines did in a shift, and which there are."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from services.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    error_console,
    fail,
    load_site,
    time_range,
)
from services.cli.history import asker
from services.oee.core.calendar import Calendar
from services.oee.core.figures import PARTS
from services.oee.report import duration, report
from services.runtime import oee_rules
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

MAX_DAYS = 400
INDICES = ("availability", "performance", "quality", "oee")
FromOption = Annotated[
    str,
    typer.Option("--from", help="`2026-11-30 06:00`, `-2h`, `yesterday` …, in the shifts' zone."),
]
ToOption = Annotated[str, typer.Option("--to", help="The same.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    app.command()(oee)
    app.command()(shifts)


def oee(
    shift: Annotated[
        str,
        typer.Argument(help="`now`, `last`, or as `plc-edge shifts` says it: `2026-11-30/manha`."),
    ] = "",
    machine: Annotated[str, typer.Option("--machine", help="Only of this machine.")] = "",
    begin: FromOption = "",
    end: ToOption = "now",
    by_shift: Annotated[
        bool, typer.Option("--by-shift", help="With --from: each shift by itself.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report, a page to print, to this file.")
    ] = None,
    language: Annotated[str, typer.Option(help="Of the report: pt or en.")] = "pt",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Availability, performance, quality and stops of each machine: of a shift, or of any time.

    Without a shift or a time it is the shift that is worked now, else the last one. What is not
    known (a gap, a PLC that did not answer) is no stop, and stands by itself; docs/oee.md has the
    rules.
    """
    if shift and begin:
        fail("give a shift, or --from and --to", EXIT_USAGE)
    if by_shift and not begin:
        fail("--by-shift needs --from", EXIT_USAGE)
    if language not in ("pt", "en"):
        fail("--language: pt or en", EXIT_USAGE)
    site = _site(config)
    args: dict[str, Any] = {"machine": machine}
    with asker(site) as ask:
        if begin:
            args["begin_ms"], args["end_ms"] = time_range(begin, end, _zone(site))
            args |= {"by": "shift"} if by_shift else {}
        else:
            args["shift"] = shift or _default(ask)
        answer = ask("oee", **args)
    if as_json:
        console.print_json(orjson.dumps(answer).decode())
    elif by_shift:
        _print_rows(answer)
    elif html is not None:
        text = report(answer, language, site.config.site).html
        try:
            html.write_text(text, encoding="utf-8")
        except OSError as e:
            fail(f"{html}: {e.strerror}")
        error_console.print(f"written to {html}", markup=False)
    else:
        _print(answer)


def shifts(
    begin: FromOption = "-1d",
    end: ToOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which shifts the configuration makes: from yesterday to a week ahead, or of any time.

    Of the file as it is, applied or not: look here for holidays and the night the clocks change.
    """
    site = _site(config)
    now = now_ms()
    zone = _zone(site)
    begin_ms, end_ms = time_range(begin, end or str(now + 7 * 86_400_000), zone)
    if end_ms - begin_ms > MAX_DAYS * 86_400_000:
        fail(f"a time is at most {MAX_DAYS} days long", EXIT_USAGE)
    calendar = Calendar.from_spec(oee_rules.spec(site)["shifts"], zone)
    found = [s.as_json(now) for s in calendar.between(begin_ms, end_ms)]
    if as_json:
        answer = {"timezone": zone.key, "now_ms": now, "shifts": found}
        console.print_json(orjson.dumps(answer).decode())
        return
    table = Table("shift", "begins", "ends", "lasts", "breaks", "", title=zone.key)
    for s in found:
        table.add_row(
            s["id"],
            _at(s["begin_ms"], zone),
            _at(s["end_ms"], zone),
            duration(s["end_ms"] - s["begin_ms"]),
            ", ".join(f"{_at(b, zone)[11:16]}-{_at(e, zone)[11:16]}" for b, e in s["breaks_ms"]),
            {"now": "now", "past": ""}.get(s["state"], "to come"),
        )
    console.print(table)


def _site(config: Path | None) -> Site:
    site = load_site(config)
    if site.config.shifts is None:
        hint = "add `shifts: {week: [{name: dia, from: 06:00, to: 22:00}]}` (docs/oee.md)"
        fail(f"the configuration has no `shifts:`: {hint}", EXIT_USAGE)
    return site


def _zone(site: Site) -> ZoneInfo:
    assert site.config.shifts is not None
    return ZoneInfo(site.config.shifts.timezone)


def _default(ask: Any) -> str:
    """The shift of now, else the last one."""
    now = now_ms()
    found = ask("shifts", begin_ms=now, end_ms=now + 1)["shifts"]
    return "now" if found else "last"


def _at(ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(ms / 1_000, zone).strftime("%Y-%m-%d %H:%M:%S")


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{100 * ratio:.1f} %"


def _pieces(count: float | None) -> str:
    return "–" if count is None else f"{count:,.0f}"


def _print(answer: dict[str, Any]) -> None:
    zone = ZoneInfo(answer["timezone"])
    names = ", ".join(s["id"] for s in answer["shifts"][:5]) or "no shift"
    ends = f"{_at(answer['begin_ms'], zone)} to {_at(answer['until_ms'], zone)}"
    more = "" if answer["until_ms"] == answer["end_ms"] else ", not ended"
    table = Table(
        "machine", *INDICES, "good", "bad", *_parts(answer), title=f"{names}: {ends}{more}"
    )
    rows = [(m["name"], m) for m in answer["machines"]]
    if len(rows) > 1:
        rows.append(("all", answer["total"]))
    for name, m in rows:
        table.add_row(
            name,
            *(_percent(m[k]) for k in INDICES),
            *(_pieces(m["pieces"][k]) for k in ("good", "bad")),
            *(duration(m["parts_ms"][p]) for p in _parts(answer)),
        )
    console.print(table)
    for m in answer["machines"]:
        _print_stops(m, zone)
    for text in answer["damage"]:
        error_console.print(f"cannot be read, and counts as not known: {text}", markup=False)


def _parts(answer: dict[str, Any]) -> list[str]:
    """Those that any machine has, and always the first four."""
    used = [p for p in PARTS if any(m["parts_ms"][p] for m in answer["machines"])]
    return [p for p in PARTS if p in used or p in PARTS[:4]]


def _print_stops(machine: dict[str, Any], zone: ZoneInfo) -> None:
    short = machine["short_stops"]
    if short["count"]:
        text = f"{machine['name']}: {short['count']} short stops, {duration(short['ms'])}, count as"
        console.print(f"{text} running", markup=False)
    for key, what in (("unseen", "in a time that is not known"), ("at_rest", "in breaks")):
        if count := machine[f"pieces_{key}"]["total"]:
            text = f"{machine['name']}: {_pieces(count)} pieces were counted {what}: in no index"
            console.print(text, markup=False)
    if not machine["stops"]:
        return
    table = Table("from", "to", "stopped", "reason", title=f"stops of {machine['name']}")
    edge = {"before": "before ", "after": " and on", "unknown": " ?", "seen": ""}
    for s in machine["stops"]:
        reasons = (
            (machine["words"].get(r["code"], r["code"]) or "no reason")
            + (" (planned)" if r["code"] in machine["planned"] else "")
            for r in s["reasons"]
        )
        table.add_row(
            edge[s["began"]] + _at(s["begin_ms"], zone),
            _at(s["end_ms"], zone) + edge[s["ended"]],
            duration(s["stopped_ms"]),
            escape(", ".join(dict.fromkeys(reasons))),
        )
    console.print(table)


def _print_rows(answer: dict[str, Any]) -> None:
    table = Table("shift", "machine", *INDICES, "good", "bad", "stops", *PARTS[:4])
    for row in answer["rows"]:
        table.add_row(
            row["shift"],
            row["machine"],
            *(_percent(row[k]) for k in INDICES),
            *(_pieces(row["pieces"][k]) for k in ("good", "bad")),
            str(row["stop_count"]),
            *(duration(row["parts_ms"][p]) for p in PARTS[:4]),
        )
    console.print(table)
