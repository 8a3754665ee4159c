"""What ``/api/status`` says, as far as it decides whether a configuration does harm; and the watch
over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STATUS, CENTRE = "status", "centre"
"""Besides PLCs and outputs: that the site tells of itself at all, and that the centre answers."""


@dataclass(frozen=True, slots=True)
class Health:
    """One look at the site. ``works`` and ``said`` have the same names: ``plc:<id>``,
    ``output:<name>``.
    """

    works: Mapping[str, bool]
    said: Mapping[str, str]
    """In words, of those that do not work."""
    plcs: Mapping[str, str]
    """online | degraded | offline"""
    outputs: Mapping[str, str]
    """up | down"""
    pending: int

    def as_report(self) -> dict[str, Any]:
        """As the centre takes it."""
        return {"plcs": dict(self.plcs), "outputs": dict(self.outputs), "pending": self.pending}


def read(document: Mapping[str, Any]) -> Health:
    """The health in a status document. Raises KeyError, TypeError, AttributeError where it is none.

    A PLC works while one of its groups brings values (``fresh``): one that answers and of which no
    field can be read any more is as lost as one that is off.
    """
    works, said = {}, {}
    plcs, outputs, pending = {}, {}, 0
    for plc in document["plcs"]:
        name, answers = f"plc:{plc['id']}", plc["status"] in ("online", "degraded")
        plcs[plc["id"]] = plc["status"] if answers else "offline"
        works[name] = bool(answers and plc["fresh"])
        said[name] = str((plc.get("failure") or {}).get("message") or plc["status"])
    for output in document["outputs"]:
        # Degraded: some of it goes out (a tenant's connection of several), or is late.
        name, up = f"output:{output['name']}", output["status"] in ("ok", "degraded")
        outputs[output["name"]] = "up" if up else "down"
        works[name] = up
        said[name] = str((output.get("error") or {}).get("message") or output["status"])
        pending += output["pending"] or 0
    return Health(works, said, plcs, outputs, pending)


class Watch:
    """Whether what worked before an apply still does. Times: seconds of any steady clock.

    Something is lost when it has not worked for half the time that is watched, without a break
    (processes restart, readers connect), or does not work at its end. What had not worked before,
    and what the new configuration no longer has, is no reason.
    """

    def __init__(self, worked: Iterable[str], watch_s: float, now_s: float) -> None:
        self._watch_s = watch_s
        self._since_s = now_s
        self._missing_s: dict[str, float] = dict.fromkeys(worked, now_s)
        """Since when each of them does not work; those that do are not in it."""
        self._why: dict[str, str] = {}
        self._worked = frozenset(self._missing_s)

    def see(self, health: Health | None, now_s: float) -> None:
        """A look at the site; None where it does not tell."""
        self._note(STATUS, health is not None, "the metrics service does not answer", now_s)
        for name in self._worked - {STATUS, CENTRE}:
            works = health is not None and health.works.get(name, True)
            words = "unknown" if health is None else health.said.get(name, "")
            self._note(name, works, words, now_s)

    def reached(self, now_s: float) -> None:
        """The centre has answered: once is enough."""
        self._note(CENTRE, True, "", now_s)

    def _note(self, name: str, works: bool, words: str, now_s: float) -> None:
        if works or name not in self._worked:
            self._missing_s.pop(name, None)
        else:
            self._missing_s.setdefault(name, now_s)
            self._why[name] = words

    def left_s(self, now_s: float) -> float:
        """Seconds to the end of the watch."""
        return max(0.0, self._since_s + self._watch_s - now_s)

    def lost(self, now_s: float) -> str:
        """What makes this configuration one that does harm, in words; "" while nothing does."""
        over = self.left_s(now_s) <= 0
        half_s = self._watch_s / 2
        lost = [
            name
            for name, since_s in sorted(self._missing_s.items())
            # The centre has all of the time: it may be restarting itself.
            if over or (name != CENTRE and now_s - since_s >= half_s)
        ]
        return "; ".join(self._words(name) for name in lost)

    def _words(self, name: str) -> str:
        if name == CENTRE:
            return "the centre could be reached before and cannot any more"
        kind, _, item = name.partition(":")
        what = {"plc": f"PLC {item}", "output": f"output {item}"}.get(kind, "the site")
        return f"{what} worked before and does not any more ({self._why.get(name, 'unknown')})"
