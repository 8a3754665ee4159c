"""A shift's report for people: text and a page, in Portuguese and English. From what the question
``oee`` is answered with; no clock, file or socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from services.oee.core.figures import PARTS

Json = dict[str, Any]
# The longest stops; all of them are in the panel.
STOPS_SHOWN = 20

WORDS = {
    "pt": {
        "title": "Relatório do turno {shift}", "period": "{begin} a {end} ({zone})",
        "so_far": "até {until}: o turno ainda não terminou",
        "machine": "Máquina", "all": "Todas", "availability": "Disponibilidade",
        "performance": "Desempenho", "quality": "Qualidade", "oee": "OEE",
        "running": "Rodando", "stopped_unplanned": "Parada não planejada",
        "stopped_planned": "Parada planejada", "unknown": "Não se sabe", "breaks": "Pausas",
        "outside": "Fora do turno", "good": "Boas", "bad": "Ruins", "total": "Total",
        "time": "Tempo", "pieces": "Peças", "stops": "Paradas", "reasons": "Motivos",
        "from": "Início", "to": "Fim", "stopped": "Duração", "reason": "Motivo",
        "no_reason": "sem motivo", "planned": "planejada", "none": "Nenhuma parada.",
        "short": "{n} paradas curtas ({time}) contam como rodando",
        "unseen": "{n} peças foram contadas em tempo que não se conhece: não entram nos índices",
        "at_rest": "{n} peças foram contadas em pausas: não entram nos índices",
        "before": "já estava parada", "after": "continua parada", "lost": "não se sabe",
        "more": "e mais {n} paradas menores", "undefined": "–",
        "about": "Disponibilidade = rodando ÷ (rodando + parada não planejada). Desempenho = ciclo"
        " ideal × peças ÷ tempo rodando. Qualidade = boas ÷ total. O que não se sabe não é parada.",
    },
    "en": {
        "title": "Report of shift {shift}", "period": "{begin} to {end} ({zone})",
        "so_far": "until {until}: the shift has not ended",
        "machine": "Machine", "all": "All", "availability": "Availability",
        "performance": "Performance", "quality": "Quality", "oee": "OEE",
        "running": "Running", "stopped_unplanned": "Unplanned stop",
        "stopped_planned": "Planned stop", "unknown": "Not known", "breaks": "Breaks",
        "outside": "Outside shifts", "good": "Good", "bad": "Bad", "total": "Total",
        "time": "Time", "pieces": "Pieces", "stops": "Stops", "reasons": "Reasons",
        "from": "From", "to": "To", "stopped": "Duration", "reason": "Reason",
        "no_reason": "no reason", "planned": "planned", "none": "No stop.",
        "short": "{n} short stops ({time}) count as running",
        "unseen": "{n} pieces were counted in a time that is not known: in no index",
        "at_rest": "{n} pieces were counted in breaks: in no index",
        "before": "stopped before", "after": "still stopped", "lost": "not known",
        "more": "and {n} shorter stops", "undefined": "–",
        "about": "Availability = running ÷ (running + unplanned stops). Performance = ideal cycle"
        " × pieces ÷ running time. Quality = good ÷ total. What is not known is no stop.",
    },
}  # fmt: skip

STYLE = (
    "body{font:14px/1.4 sans-serif;color:#16202a;max-width:60em;margin:1em auto;padding:0 1em}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse;"
    "width:100%}th,td{border-bottom:1px solid #ccd3d9;padding:.3em .5em;text-align:left}"
    "td.n,th.n{text-align:right}.soft{color:#52606d}section{break-inside:avoid}"
    "@page{size:A4;margin:15mm}"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What is sent."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class _Table:
    """A heading of columns, and rows; columns in ``numbers`` are numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int]


class _Writer:
    def __init__(self, answer: Json, language: str) -> None:
        self.answer = answer
        self.words = WORDS[language]
        self.comma = language == "pt"
        self.zone: tzinfo = ZoneInfo(answer["timezone"])

    def moment(self, ms: int) -> str:
        """To the second, with the date where it is not the first one's."""
        at = datetime.fromtimestamp(ms / 1_000, UTC).astimezone(self.zone)
        first = datetime.fromtimestamp(self.answer["begin_ms"] / 1_000, UTC).astimezone(self.zone)
        return at.strftime("%H:%M:%S" if at.date() == first.date() else f"{self._date} %H:%M:%S")

    def day(self, ms: int) -> str:
        at = datetime.fromtimestamp(ms / 1_000, UTC).astimezone(self.zone)
        return at.strftime(f"{self._date} %H:%M")

    @property
    def _date(self) -> str:
        return "%d/%m/%Y" if self.comma else "%Y-%m-%d"

    def percent(self, ratio: float | None) -> str:
        if ratio is None:
            return self.words["undefined"]
        text = f"{100 * ratio:.1f} %"
        return text.replace(".", ",") if self.comma else text

    def count(self, pieces: float | None) -> str:
        if pieces is None:
            return self.words["undefined"]
        return f"{pieces:,.0f}".replace(",", "." if self.comma else ",")

    def reason(self, machine: Json, code: str) -> str:
        """In words; a code that has none is said as it is."""
        if not code:
            return self.words["no_reason"]
        text = machine["words"].get(code, code)
        return f"{text} ({self.words['planned']})" if code in machine["planned"] else text


def duration(ms: float) -> str:
    """``7 h 30 min``, ``12 min``, ``45 s``."""
    seconds = round(ms / 1_000)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def report(answer: Json, language: str = "pt", site: str = "") -> Report:
    """Of one shift, or of any time."""
    w = _Writer(answer, language)
    shifts = answer["shifts"]
    name = shifts[0]["id"].replace("/", " ") if len(shifts) == 1 else w.day(answer["begin_ms"])
    title = w.words["title"].format(shift=name)
    ends = {"begin": w.day(answer["begin_ms"]), "end": w.day(answer["end_ms"])}
    lines = [w.words["period"].format(**ends, zone=answer["timezone"])]
    if answer["until_ms"] < answer["end_ms"]:
        lines.append(w.words["so_far"].format(until=w.moment(answer["until_ms"])))
    blocks: list[tuple[str, list[_Table | str]]] = [("", [*lines, _indices(w)])]
    blocks.append((w.words["time"], [_times(w)]))
    for machine in answer["machines"]:
        blocks.append((machine["name"], list(_machine(w, machine))))
    blocks.append(("", [w.words["about"]]))
    head = f"{site}: {title}" if site else title
    total = answer["total"]
    subject = f"{head} - OEE {w.percent(total and total['oee'])}"
    return Report(subject, _text(head, blocks), _html(head, blocks, language))


def _indices(w: _Writer) -> _Table:
    words = w.words
    keys = ("availability", "performance", "quality", "oee")
    heads = [words["machine"], *(words[k] for k in (*keys, "good", "bad", "total"))]
    rows = [
        [
            name,
            *(w.percent(m[k]) for k in keys),
            *(w.count(m["pieces"][k]) for k in ("good", "bad", "total")),
        ]
        for name, m in _each(w)
    ]
    return _Table(heads, rows, frozenset(range(1, 8)))


def _times(w: _Writer) -> _Table:
    parts = [p for p in PARTS if p != "outside" or any(m["parts_ms"][p] for _, m in _each(w))]
    heads = [w.words["machine"], *(w.words[p] for p in parts)]
    rows = [[name, *(duration(m["parts_ms"][p]) for p in parts)] for name, m in _each(w)]
    return _Table(heads, rows, frozenset(range(1, len(heads))))


def _each(w: _Writer) -> Iterable[tuple[str, Json]]:
    machines = [(m["name"], m) for m in w.answer["machines"]]
    total = [(w.words["all"], w.answer["total"])] if len(machines) > 1 else []
    return machines + total


def _machine(w: _Writer, machine: Json) -> Iterable[_Table | str]:
    words, stops = w.words, machine["stops"]
    short = machine["short_stops"]
    if short["count"]:
        yield words["short"].format(n=short["count"], time=duration(short["ms"]))
    for key in ("unseen", "at_rest"):
        if pieces := machine[f"pieces_{key}"]["total"]:
            yield words[key].format(n=w.count(pieces))
    if not stops:
        yield words["none"]
        return
    by_time = sorted(machine["reasons_ms"].items(), key=lambda r: -r[1])
    rows = [[w.reason(machine, code), duration(ms)] for code, ms in by_time]
    yield _Table([words["reasons"], words["stopped"]], rows, frozenset({1}))
    longest = sorted(stops, key=lambda s: -s["stopped_ms"])[:STOPS_SHOWN]
    rows = [
        [
            w.moment(s["begin_ms"]) + _edge(words, s["began"]),
            w.moment(s["end_ms"]) + _edge(words, s["ended"]),
            duration(s["stopped_ms"]),
            ", ".join(dict.fromkeys(w.reason(machine, r["code"]) for r in s["reasons"])),
        ]
        for s in sorted(longest, key=lambda s: s["begin_ms"])
    ]
    heads = [words["from"], words["to"], words["stopped"], words["reason"]]
    yield _Table(heads, rows, frozenset({2}))
    if len(stops) > STOPS_SHOWN:
        yield words["more"].format(n=len(stops) - STOPS_SHOWN)


def _edge(words: dict[str, str], kind: str) -> str:
    text = {"before": words["before"], "after": words["after"], "unknown": words["lost"]}.get(kind)
    return f" ({text})" if text else ""


def _text(head: str, blocks: Sequence[tuple[str, list[_Table | str]]]) -> str:
    out = [head, ""]
    for title, parts in blocks:
        if title:
            out += ["", title, "-" * len(title)]
        for part in parts:
            if isinstance(part, str):
                out.append(part)
                continue
            table = [part.heads, *part.rows]
            widths = [max(len(row[i]) for row in table) for i in range(len(part.heads))]
            out += ["", *("  ".join(_padded(row, widths, part.numbers)).rstrip() for row in table)]
    return "\n".join(out) + "\n"


def _padded(row: Sequence[str], widths: Sequence[int], numbers: frozenset[int]) -> Iterable[str]:
    return (
        cell.rjust(width) if i in numbers else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )


def _html(head: str, blocks: Sequence[tuple[str, list[_Table | str]]], language: str) -> str:
    lang = "pt-BR" if language == "pt" else "en"
    out = [
        f'<!doctype html><html lang="{lang}"><head><meta charset="utf-8">'
        f"<title>{escape(head)}</title><style>{STYLE}</style></head><body><h1>{escape(head)}</h1>"
    ]
    for title, parts in blocks:
        out.append("<section>" + (f"<h2>{escape(title)}</h2>" if title else ""))
        for part in parts:
            if isinstance(part, str):
                out.append(f'<p class="soft">{escape(part)}</p>')
                continue
            out.append("<table><thead><tr>")
            out += (_cell("th", head, i, part) for i, head in enumerate(part.heads))
            out.append("</tr></thead><tbody>")
            for row in part.rows:
                cells = "".join(_cell("td", cell, i, part) for i, cell in enumerate(row))
                out.append(f"<tr>{cells}</tr>")
            out.append("</tbody></table>")
        out.append("</section>")
    return "\n".join([*out, "</body></html>"]) + "\n"


def _cell(tag: str, text: str, column: int, table: _Table) -> str:
    number = ' class="n"' if column in table.numbers else ""
    return f"<{tag}{number}>{escape(text)}</{tag}>"
