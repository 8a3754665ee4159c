"""The outbox against a list: appends, reads, partial and stale acknowledgements, crashes, eviction,
several outputs.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bus.frames import GAP_ROW, Sample
from services.store_forward.outbox import Bounds, Outbox

OUTPUTS = ("a", "b")
EPOCH = 1_764_000_000_000


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.offered: list[tuple[str, int]] = []
        self.committed: list[tuple[str, int]] = []
        self.got: dict[str, dict[int, tuple[str, int]]] = {n: {} for n in OUTPUTS}
        self.told: dict[str, dict[int, set[tuple[str, int]]]] = {n: {} for n in OUTPUTS}
        self.seqs: dict[str, int] = {}
        self.outbox = self.open()

    def open(self) -> Outbox:
        bounds = Bounds(min_free_bytes=0, max_size_bytes=2**20, segment_bytes=40_000)
        return Outbox(self.folder, "site", [(n, "oldest") for n in OUTPUTS], bounds=bounds)

    @rule(plc=st.sampled_from(["p1", "p10"]), count=st.integers(1, 30), size=st.integers(0, 900))
    def offer(self, plc: str, count: int, size: int) -> None:
        for _ in range(count):
            seq = self.seqs.get(plc, 0) + 1
            body = b"%s/%d/%s" % (plc.encode(), seq, b"x" * size)
            assert self.outbox.offer(Sample(plc, "acme", EPOCH, seq, seq, body)) == "ok"
            self.seqs[plc] = seq
            self.offered.append((plc, seq))

    @rule(plc=st.sampled_from(["p1", "p10"]), ahead=st.integers(2, 9))
    def offer_out_of_order(self, plc: str, ahead: int) -> None:
        seq = self.seqs.get(plc, 0)
        if seq:
            assert self.outbox.offer(Sample(plc, "acme", EPOCH, seq + ahead, 0, b"")) == "nak"
            assert self.outbox.offer(Sample(plc, "acme", EPOCH, seq, 0, b"")) == "repeat"

    @rule()
    def commit(self) -> None:
        settled = self.outbox.commit()
        assert settled == {p: (EPOCH, max(s for q, s in self.offered if q == p))
                           for p in {p for p, _ in self.offered}}  # fmt: skip
        self.committed += self.offered
        self.offered = []

    @rule(name=st.sampled_from(OUTPUTS), limit=st.integers(1, 200), part=st.floats(0, 1))
    def take(self, name: str, limit: int, part: float) -> None:
        """Reads on from the cursor and settles a part of it."""
        rows = self.outbox.read(name, "live", self.outbox.cursors[name].done, limit)
        rows = rows[: round(len(rows) * part)]
        for r in rows:
            if r.kind == GAP_ROW:
                m = orjson.loads(r.body)
                span = range(m["first_seq"], m["last_seq"] + 1)
                self.told[name][r.pos] = {(m["plc_id"], s) for s in span}
            else:
                assert r.body.startswith(b"%s/%d/" % (r.plc.encode(), r.seq))
                self.got[name][r.pos] = (r.plc, r.seq)
        if rows:
            self.outbox.settle(name, "live", rows[-1].pos)

    @rule(name=st.sampled_from(OUTPUTS), back=st.integers(0, 50))
    def settle_again(self, name: str, back: int) -> None:
        """A receipt that comes late, or for what does not exist, changes nothing."""
        done = self.outbox.cursors[name].done
        self.outbox.settle(name, "live", done - back)
        assert self.outbox.cursors[name].done == done

    @rule()
    def housekeeping(self) -> None:
        self.outbox.save()
        self.outbox.reclaim()

    @rule()
    def evict(self) -> None:
        if not self.offered:
            self.outbox.drop_for_space()

    @rule(saved=st.booleans())
    def crash(self, saved: bool) -> None:
        """Everything in memory is gone; cursors were saved at the last receipt or not."""
        if saved:
            self.outbox.save()
        for segment in self.outbox.segments:
            segment.close()
        self.outbox.state.close()
        for plc in {p for p, _ in self.offered}:
            self.seqs[plc] = max((s for q, s in self.committed if q == plc), default=0)
        self.offered = []
        self.outbox = self.open()
        for name in OUTPUTS:  # what lies behind the saved cursor comes again
            done = self.outbox.cursors[name].done
            self.got[name] = {pos: row for pos, row in self.got[name].items() if pos <= done}
            self.told[name] = {pos: span for pos, span in self.told[name].items() if pos <= done}

    def waiting(self, name: str) -> set[tuple[str, int]]:
        """What the outbox still holds or tells of for an output."""
        found: set[tuple[str, int]] = set()
        at = self.outbox.cursors[name].done
        while rows := self.outbox.read(name, "live", at, 500):
            for r in rows:
                if r.kind == GAP_ROW:
                    m = orjson.loads(r.body)
                    span = range(m["first_seq"], m["last_seq"] + 1)
                    found |= {(m["plc_id"], s) for s in span}
                else:
                    found.add((r.plc, r.seq))
            at = rows[-1].pos
        return found

    @invariant()
    def nothing_is_missing(self) -> None:
        for name in OUTPUTS:
            got = list(self.got[name].values())
            gaps = set().union(*self.told[name].values())
            truth = set(self.committed)
            for plc in self.seqs:
                seqs = [s for p, s in got if p == plc]
                assert seqs == sorted(set(seqs)), "out of order or twice"
            known = set(got) | gaps | self.waiting(name)
            assert known >= truth, sorted(truth - known)[:5]
            assert set(got) <= truth

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
