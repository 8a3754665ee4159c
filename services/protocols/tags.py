"""A group whose fields are tags (OPC UA nodes, symbols): what it holds, and the readings of it.

A polled group (``mode: scan``) makes one reading a scan, a subscribed one (``mode: subscribe``) one
of each moment at which something changed: changes of different tags whose source times lie within
``GATHER_MS`` are one moment, two changes of one tag never are. Each reading holds the whole group
as it was then, under the source's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.protocols.conform import conform
from services.protocols.source import Reading
from services.s7.field import Field
from services.s7.types import BadValue

# A thousand tags that a server samples one after another are one moment of some ms; told one by
# one they would be a thousand messages of a thousand values.
GATHER_MS = 10
# A source's time that is further off than this from this PC's is no timestamp.
TIME_TOLERANCE_MS = 300_000
# A group's time does not go back by less than this: what comes late is told right after what was
# told before it, or two values would have one place in a database.
LATE_MS = 2_000
# A subscription's first values come in several pieces: what has not come by then is missing.
FILL_MS = 5_000
NO_VALUE = "no_value_yet"


@dataclass(slots=True)
class Change:
    """A new value of one tag, or that it has none."""

    name: str
    """The field's."""
    value: Any = None
    """As the library has decoded it; services/protocols/conform.py says what may come."""
    bad: str = ""
    """Why there is none, a word; empty where ``value`` is good."""
    ts_ms: int = 0
    """The source's own time, Unix ms; 0: it gives none."""


class Tags:
    """One group of tags."""

    def __init__(self, config: dict[str, Any], now_ms: Callable[[], int]) -> None:
        """``config``: a group as rendered (services/runtime/render.py)."""
        self.fields = [Field.from_dict(f) for f in config["fields"]]
        self.is_subscribed = config.get("mode") == "subscribe"
        self.refused: dict[str, str] = {}
        """Tag as the source calls it -> why the source gives no value."""
        self._hold_back_ms = 2 * round(config["scan_s"] * 1_000) + 1_000
        """A change may take a publishing interval, and the way here, to become known."""
        self._now_ms = now_ms
        self._conform = {f.name: conform(f) for f in self.fields}
        self._tag = {f.name: next(iter((f.tag or {"": f.name}).values())) for f in self.fields}
        self._told_ms = 0
        self.forget()

    def forget(self) -> None:
        """A new connection: nothing is known."""
        self._raw: tuple[Mapping[str, Any], Mapping[str, str]] = {}, {}
        self._values: dict[str, Any] = {}
        self._bad: dict[str, str] = {}
        self._unknown = {f.name for f in self.fields}
        self._untold = False
        """First values have come that no reading has told of."""
        self._newest_ms = 0
        """The newest source time of those."""
        self._since_ms = self._now_ms()
        self._lag_ms = 0
        """How far the newest change's time lay behind this PC's."""
        self._changed_ms: dict[str, int] = {}
        """By field: the time that its newest change was told under."""
        self.refused = {}

    # -- polled --------------------------------------------------------------------------

    def scanned(
        self,
        values: Mapping[str, Any],
        bad: Mapping[str, str],
        *,
        ts_ms: int,
        latency_ms: float,
        began_s: float,
        requests: int,
    ) -> Reading:
        """The reading of an answer to a scan."""
        is_new = (values, bad) != self._raw
        if is_new:
            self._raw = values, bad
            self._values, self._bad = {}, {}
            for name in self._conform:
                if name in values and name not in bad:
                    self._put(name, values[name], "")
                else:
                    self._put(name, None, bad.get(name, NO_VALUE))
            self._note_refused(bad)
        ts_ms, doubt = self._stamp(ts_ms)
        record = (is_new, self._values, self._bad)
        return Reading([record], ts_ms, latency_ms, began_s, requests, doubt=doubt)

    def failed(self, code: str, text: str, *, latency_ms: float, began_s: float) -> Reading:
        """The reading of a request that was refused as a whole."""
        self._raw = {}, {}
        self._values, self._bad = {}, dict.fromkeys(self._conform, code)
        record = (True, self._values, self._bad)
        ts_ms, _ = self._stamp(self._now_ms() - round(latency_ms / 2))
        return Reading([record], ts_ms, latency_ms, began_s, 0, (code, text))

    # -- subscribed ----------------------------------------------------------------------

    def changed(self, changes: Sequence[Change]) -> Iterator[Reading]:
        """The readings that a subscription's news makes. The first values of a connection are one
        reading, told when all are there.
        """
        later: list[Change] = []
        for c in changes:
            if c.name in self._unknown:
                self._unknown.discard(c.name)
                self._take({c.name: c})
                self._untold = True
                self._newest_ms = max(self._newest_ms, c.ts_ms)
            else:
                later.append(c)
        timed = self._in_order(later)
        if self._untold and (timed or self._is_full):
            yield self._first(timed[0][0] if timed else 0)
        moment: dict[str, Change] = {}
        began_ms = newest_ms = 0
        for ts_ms, c in timed:
            if moment and (c.name in moment or ts_ms - began_ms > GATHER_MS):
                yield self._reading(moment, newest_ms)
                moment = {}
            if not moment:
                began_ms = ts_ms
            moment[c.name] = c
            newest_ms = ts_ms
        if moment:
            yield self._reading(moment, newest_ms)

    def held(self) -> Reading | None:
        """What a subscribed group holds; None while its first values are on their way, and until
        any has come.

        Its time lies so far back that a change from before then would be known: else a value
        could be repeated for a moment at which it was another.
        """
        if not self._is_full or len(self._unknown) == len(self.fields):
            return None
        if self._untold or self._unknown:
            return self._first()
        behind_ms = self._hold_back_ms + max(0, self._lag_ms)
        reached_ms = max(self._told_ms, *self._changed_ms.values(), 0)
        ts_ms = max(reached_ms + 1, self._now_ms() - behind_ms)
        self._told_ms = ts_ms
        return Reading([(False, self._values, self._bad)], ts_ms, requests=0, is_scan=False)

    @property
    def _is_full(self) -> bool:
        return not self._unknown or self._now_ms() - self._since_ms > FILL_MS

    def _first(self, until_ms: int = 0) -> Reading:
        """The reading of first values; ``until_ms``: of the changes that came with them, or 0."""
        now_ms = self._now_ms()
        is_fresh = abs(now_ms - self._newest_ms) <= LATE_MS
        self._untold = False
        self._values, self._bad = dict(self._values), dict(self._bad)
        for name in self._unknown:
            self._bad.setdefault(name, NO_VALUE)
        if self._is_full:
            self._unknown.clear()
        ts_ms = self._newest_ms if is_fresh else now_ms
        ts_ms, _ = self._stamp(min(ts_ms, until_ms - 1) if until_ms else ts_ms)
        record = (True, self._values, self._bad)
        return Reading([record], ts_ms, requests=0, is_scan=False)

    def _in_order(self, changes: Sequence[Change]) -> list[tuple[int, Change]]:
        """By the source's time, but never a tag's changes in another order than they came."""
        now_ms = self._now_ms()
        reached: dict[str, int] = {}
        timed = []
        for c in changes:
            ts_ms = max(c.ts_ms or now_ms, reached.get(c.name, 0))
            reached[c.name] = ts_ms
            timed.append((ts_ms, c))
        timed.sort(key=lambda pair: pair[0])
        return timed

    def _reading(self, moment: Mapping[str, Change], ts_ms: int) -> Reading:
        self._take(moment)
        lag_ms = self._now_ms() - ts_ms
        is_back = ts_ms < self._told_ms - LATE_MS
        ts_ms, doubt = self._stamp(ts_ms)
        others = (ms for name, ms in self._changed_ms.items() if name not in moment)
        if is_back and any(ms > ts_ms for ms in others):
            # What the others were at that time is not known any more.
            doubt = doubt or "late_change"
        if not doubt:
            self._lag_ms = lag_ms
        self._changed_ms.update(dict.fromkeys(moment, ts_ms))
        record = (True, self._values, self._bad)
        return Reading([record], ts_ms, requests=0, doubt=doubt, is_scan=False)

    def _take(self, moment: Mapping[str, Change]) -> None:
        """Takes over one change of each of these tags; a reading that is told stays as it was."""
        self._values, self._bad = dict(self._values), dict(self._bad)
        for c in moment.values():
            self._put(c.name, c.value, c.bad)
        if self.refused or any(c.bad for c in moment.values()):
            refused = dict(self.refused)
            for c in moment.values():
                refused.pop(self._tag[c.name], None)
                if c.bad:
                    refused[self._tag[c.name]] = c.bad
            self.refused = refused

    # -- both ----------------------------------------------------------------------------

    def _put(self, name: str, value: Any, bad: str) -> None:
        if not bad:
            try:
                self._values[name] = self._conform[name](value)
            except BadValue as e:
                bad = e.reason
            else:
                self._bad.pop(name, None)
                return
        self._values.pop(name, None)
        self._bad[name] = bad

    def _note_refused(self, bad: Mapping[str, str]) -> None:
        self.refused = {self._tag[name]: why for name, why in bad.items()}

    def _stamp(self, ts_ms: int) -> tuple[int, str]:
        """(the time of a reading, why it is doubtful or empty) for the source's time."""
        now_ms, doubt = self._now_ms(), ""
        if abs(ts_ms - now_ms) > TIME_TOLERANCE_MS:
            ts_ms, doubt = now_ms, "source_time_off"
        if self._told_ms - LATE_MS <= ts_ms <= self._told_ms:
            ts_ms = self._told_ms + 1
        self._told_ms = ts_ms
        return ts_ms, doubt
