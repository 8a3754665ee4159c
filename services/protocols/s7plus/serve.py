"""One connection's life: what the program has is looked up, then groups are read when asked for.

Runs in a thread of the reader (services/protocols/threaded.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from services.protocols.line import Line
from services.protocols.s7plus import words
from services.protocols.s7plus.cpu import Cpu, Stamp
from services.protocols.s7plus.plan import SymbolPlan, Tag, make_plan, values_of
from services.protocols.s7plus.symbols import parse_symbol
from services.protocols.s7plus.values import Refused

# The CPU's operating state is asked so often: an EXPLORE, dearer than classic S7's question.
STATE_INTERVAL_S = 2.0
# A changed program may have given a variable's place to another one of the same type. Besides each
# `program_check` it is looked at so soon after a tag is refused or comes as another type.
PROGRAM_AGAIN_S = 1.0


class Serve:
    """``serve`` of services/protocols/threaded.py, for one PLC's groups."""

    def __init__(
        self, plc: Mapping[str, Any], secrets: Mapping[str, Any], groups: Sequence[Sequence[Tag]]
    ) -> None:
        """``plc``: ``port``, ``timeout_s`` and ``program_check_s``; ``secrets``: Cpu's config."""
        self._plc = plc
        self._secrets = secrets
        self._groups = groups
        names = {parse_symbol(tag.symbol)[0].name for tags in groups for tag in tags}
        self._names = sorted(names)
        self._has_said = self._had_tls = False

    def __call__(self, host: str, line: Line) -> None:
        """Reads until the line is closed. Raises PlcUnavailable when the connection is gone."""
        # Who has had TLS is not read without: somebody in between could have it so.
        secrets = {**self._secrets, "tls": "required"} if self._had_tls else self._secrets
        cpu = Cpu(host, self._plc["port"], secrets, self._plc["timeout_s"])
        self._had_tls = cpu.has_tls
        try:
            cpu.heard = line.heard
            self._say_whom_it_trusts(cpu, line)
            check_s = self._plc["program_check_s"]
            _Reading(cpu, line, self._groups, self._names, check_s).run()
        finally:
            cpu.close()

    def _say_whom_it_trusts(self, cpu: Cpu, line: Line) -> None:
        """Once, not at every connection."""
        if self._has_said:
            return
        self._has_said = True
        if not cpu.has_tls:
            line.event("warning", "not_encrypted", f"{words.NOT_ENCRYPTED}. {words.ENCRYPT}")
        elif not (self._secrets.get("fingerprint") or self._secrets.get("ca")):
            line.event("warning", "not_pinned", words.not_pinned(cpu.fingerprint))


class _Reading:
    """One connection."""

    def __init__(
        self,
        cpu: Cpu,
        line: Line,
        groups: Sequence[Sequence[Tag]],
        names: Sequence[str],
        program_check_s: float,
    ) -> None:
        self._cpu = cpu
        self._line = line
        self._groups = groups
        self._names = names
        self._program_check_s = program_check_s
        self._plans: list[SymbolPlan] = []
        self._stamp: Stamp = {}
        self._frozen = ""
        self._state_due_s = self._program_due_s = 0.0
        self._bad: list[set[str]] = [set() for _ in groups]
        self._is_suspect = False
        """A tag has become another since it was looked up: not every change has a time (PLC tags,
        UDTs)."""

    def run(self) -> None:
        self._plan()
        self._ask_state()
        self._line.connected(self._cpu.description)
        while not self._line.is_closed:
            now_s = time.monotonic()
            if now_s >= self._state_due_s:
                self._ask_state()
            if now_s >= self._program_due_s:
                self._look_at_program()
            due_s = min(self._state_due_s, self._program_due_s) - time.monotonic()
            group = self._line.asked(max(0.0, min(1.0, due_s)))
            if group is not None:
                self._read(group)

    def _plan(self) -> None:
        """Looks up every tag. What was read of the program is dropped again: it may be large."""
        self._stamp = self._cpu.stamp(self._names)
        self._program_due_s = time.monotonic() + self._program_check_s
        tree = self._cpu.tree(self._names)
        version = self._cpu.qualifier_version
        self._plans = [make_plan(tree, tags, version) for tags in self._groups]
        refused = [str(e) for plan in self._plans for e in plan.refused.values()]
        if refused:
            text = f"{len(refused)} tags cannot be read: " + "; ".join(refused[:5])
            self._line.event("warning", "tags_refused", text)

    def _look_at_program(self) -> None:
        self._program_due_s = time.monotonic() + self._program_check_s
        if self._cpu.stamp(self._names) != self._stamp or self._is_suspect:
            self._line.event("info", "program_changed", "the PLC's program was changed: every tag"
                             " is looked up anew")  # fmt: skip
            self._is_suspect = False
            self._plan()

    def _ask_state(self) -> None:
        state = self._cpu.state()
        self._state_due_s = time.monotonic() + STATE_INTERVAL_S
        frozen = "cpu_stop" if state == "STOP" else ""
        if frozen != self._frozen:
            self._frozen = frozen
            self._line.frozen(frozen)

    def _read(self, group: int) -> None:
        plan = self._plans[group]
        began_s = time.monotonic()
        try:
            replies = self._cpu.read(plan)
        except Refused as e:
            text = words.read_refused(self._cpu.host, str(e))
            self._line.refused(group, "access_denied", text, began_s=began_s)
            return
        values, bad = values_of(plan, replies)
        never = {plan.tags[n].name for n in plan.refused}
        newly_bad = bad.keys() - self._bad[group] - never
        self._bad[group] = set(bad)
        if newly_bad and any(bad[name] in words.OF_THE_PROGRAM for name in newly_bad):
            # Perhaps another program: before its values are told for those of the old one.
            self._program_due_s = min(self._program_due_s, began_s + PROGRAM_AGAIN_S)
            self._is_suspect = True
        requests = len(plan.requests)
        self._line.read(group, values, bad, began_s=began_s, requests=requests)
