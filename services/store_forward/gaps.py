"""Gap messages (CONTRACT §4): what is lost is said, for whom, and never twice less than it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bus.frames import SAMPLE_ROW
from services.runtime.clock import now_ms
from services.store_forward.segment import Row, Where


@dataclass(slots=True)
class Gap:
    """Messages of one (PLC, epoch) that are lost. ``last_seq`` None: nobody knows how many."""

    plc: str
    locatario: str
    epoch: int
    first_seq: int
    last_seq: int | None
    from_ts: int | None
    to_ts: int | None
    outputs: frozenset[str] = frozenset()
    """Who lost them; empty: every output."""
    seqs: list[list[int]] | None = None
    """[[first, last], …], where only some of those between are lost."""
    others: int = 0
    """Between first and last, not lost or told of elsewhere; where nobody keeps which."""

    @property
    def count(self) -> int | None:
        """How many; None where nobody knows."""
        if self.last_seq is None:
            return None
        if self.seqs is not None:
            return sum(last - first + 1 for first, last in self.seqs)
        return self.last_seq - self.first_seq + 1 - self.others

    def body(self, site: str, reason: str) -> bytes:
        """The message."""
        more = {} if self.seqs is None else {"seqs": self.seqs}
        return orjson.dumps(
            {
                "v": 1,
                "site": site,
                "locatario_id": self.locatario,
                "plc_id": self.plc,
                "ts": now_ms(),
                "epoch": self.epoch,
                "first_seq": self.first_seq,
                "last_seq": self.last_seq,
                "count": self.count,
                "from_ts": self.from_ts,
                "to_ts": self.to_ts,
                "reason": reason,
                **more,
            }
        )


# So many gaps of a PLC tell exactly which rows a segment held. Where a quota had thinned them, each
# row would be a gap of its own, and what is dropped for space would take as much again.
EXACT_GAPS = 8


class Tally:
    """Collects dropped rows into as few gaps as tell exactly what is lost; of a PLC with more than
    ``EXACT_GAPS`` the rest lies in one, with its ``count``.
    """

    def __init__(self) -> None:
        self._open: dict[str, Gap] = {}
        self._gaps_of: dict[str, int] = {}
        self.gaps: list[Gap] = []

    def add(self, row: Row, outputs: frozenset[str]) -> None:
        """One lost row, in the order of its stream."""
        gap = self._open.get(row.plc)
        if (
            gap is not None
            and gap.last_seq is not None
            and (gap.epoch, gap.last_seq + 1, gap.outputs) == (row.epoch, row.seq, outputs)
        ):
            gap.last_seq, gap.to_ts = row.seq, row.ts_ms
            return
        number = self._gaps_of[row.plc] = self._gaps_of.get(row.plc, 0) + 1
        if (
            number > EXACT_GAPS
            and gap is not None
            and gap.last_seq is not None
            and (gap.epoch, gap.outputs) == (row.epoch, outputs)
            and gap.last_seq < row.seq
        ):
            gap.others += row.seq - gap.last_seq - 1
            gap.last_seq, gap.to_ts = row.seq, row.ts_ms
            return
        gap = Gap(
            row.plc, row.locatario, row.epoch, row.seq, row.seq, row.ts_ms, row.ts_ms, outputs
        )
        self._open[row.plc] = gap
        self.gaps.append(gap)


class Retold:
    """Gap messages that would be dropped themselves: what they tell of is lost, and told again.

    As they are, as long as they take little room. Else those of one PLC, epoch and reason become
    one, with its ``count``: an outage that outlasts the outbox many times must not fill it with
    messages of what it lost.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._size_bytes = 0

    def add(self, row: Row, outputs: frozenset[str]) -> None:
        """One of them, and who lost it."""
        self._rows.append(row._replace(outputs=f",{','.join(sorted(outputs))},"))
        self._size_bytes += len(row.body)

    def rows(self, most_bytes: int) -> list[Row]:
        """To be queued again."""
        if self._size_bytes <= most_bytes:
            return self._rows
        found: list[Row] = []
        merged: dict[tuple[str, int, str, str], tuple[Row, dict[str, Any]]] = {}
        for row in self._rows:
            message = orjson.loads(row.body)
            if message["last_seq"] is None:
                found.append(row)
                continue
            key = (row.plc, row.epoch, message["reason"], row.outputs)
            if key in merged:
                message = _one_of_two(merged[key][1], message)
            merged[key] = (row, message)
        for row, message in merged.values():
            found.append(row._replace(seq=message["first_seq"], body=orjson.dumps(message)))
        return found


def _one_of_two(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    whole = {**b, "count": a["count"] + b["count"]}
    for key, choose in (("first_seq", min), ("from_ts", min), ("last_seq", max), ("to_ts", max)):
        known = [m[key] for m in (a, b) if m[key] is not None]
        whole[key] = choose(known) if known else None
    whole.pop("seqs", None)
    return whole


def between(
    begin: Mapping[str, Where], rows: Iterable[Row], end: Mapping[str, Where] | None
) -> list[Gap]:
    """What is missing of each stream between two known states, given the rows that are left.

    ``end`` None: nobody knows how far the streams came; then the gaps at the end are open.
    """
    at = dict(begin)
    gaps: list[Gap] = []

    def step(plc: str, to: Where, first_held: int) -> None:
        """The stream goes on at ``to``, of which ``first_held`` is the next seq that is there."""
        was = at.get(plc)
        if was is not None and was.epoch != to.epoch:
            gaps.append(Gap(plc, was.locatario, was.epoch, was.seq + 1, None, was.ts_ms, to.ts_ms))
        first = was.seq + 1 if was is not None and was.epoch == to.epoch else 1
        if first < first_held:
            since = was.ts_ms if was is not None else None
            gaps.append(Gap(plc, to.locatario, to.epoch, first, first_held - 1, since, to.ts_ms))

    for row in rows:
        if row.kind != SAMPLE_ROW:
            continue
        here = Where(row.locatario, row.epoch, row.seq, row.ts_ms)
        was = at.get(row.plc)
        if was is None or (row.epoch, row.seq) > (was.epoch, was.seq):
            step(row.plc, here, row.seq)
            at[row.plc] = here
    if end is None:
        gaps += [Gap(p, w.locatario, w.epoch, w.seq + 1, None, w.ts_ms, None)
                 for p, w in at.items()]  # fmt: skip
    else:
        for plc, to in end.items():
            reached = at.get(plc)
            if reached is None or (to.epoch, to.seq) > (reached.epoch, reached.seq):
                step(plc, to, to.seq + 1)
    return gaps
