"""What a run has shown, as two tables: the parts, and what was asserted of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# As a message goes.
ORDER = ("PLCs", "boxes", "broker", "broker's ingestion", "database", "metrics", "dashboards")


@dataclass(slots=True)
class Report:
    """Both tables, as they fill."""

    parts: list[tuple[str, str, str]] = field(default_factory=list)
    """(part, program and version, empty where it did not run; how, or why not)"""
    shown: list[tuple[str, bool, str]] = field(default_factory=list)
    """(what, whether it holds, the evidence)"""

    def ran(self, part: str, program: str, how: str) -> None:
        """A part that runs."""
        self.parts.append((part, program, how))

    def did_not_run(self, part: str, why: str) -> None:
        """A part that does not."""
        self.parts.append((part, "", why))

    def show(self, what: str, good: bool, evidence: str) -> None:
        """One assertion."""
        self.shown.append((what, good, evidence))

    @property
    def good(self) -> bool:
        """Whether all of them hold."""
        return bool(self.shown) and all(good for _, good, _ in self.shown)

    def print(self) -> None:
        """On standard output."""
        # rich cuts a pipe at 80 columns, and with it the words that somebody greps for.
        console = Console(width=None if sys.stdout.isatty() else 200)
        parts = _table("PART", "PROGRAM", "HOW")
        for part, program, how in sorted(self.parts, key=lambda row: ORDER.index(row[0])):
            state = escape(program) if program else "[yellow]did not run[/]"
            parts.add_row(escape(part), state, escape(how))
        shown = _table("SHOWN", "", "EVIDENCE")
        for what, good, evidence in self.shown:
            shown.add_row(escape(what), "[green]yes[/]" if good else "[red]NO[/]", escape(evidence))
        console.print(parts)
        console.print()
        console.print(shown)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
