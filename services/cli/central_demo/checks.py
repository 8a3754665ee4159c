"""What the pipeline shows: each a question to the running parts, and what they answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import urllib3

from services.cli.central_demo.boxes import MEASUREMENT, Box, Placed
from services.cli.central_demo.broker import ADDRESS, CentralBroker
from services.cli.central_demo.database import Database, Series
from services.cli.central_demo.parts import wait_for
from services.cli.central_demo.reader import Account
from services.cli.central_demo.report import Report
from services.runtime.clock import now_ms

# What was written is found by then. VictoriaMetrics does not find a new series for ten seconds
# where somebody has asked for it before.
ARRIVES_S = 30.0
# Prometheus asks every 15 s, from a moment of its own on.
SCRAPED_S = 25.0
READ_S = 30.0
# A message may be this much older than the direct read that is compared with it.
SAME_STATE_MS = 2_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
# All that a run writes but for the points of the checks of retention.
RECENT_MS = 30 * MINUTE_MS
TAGS = ("site", "locatario_id", "plc_id", "ip", "db", "group", "machine")


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values of a message as a database of numbers keeps them."""
    return {n: float(v) for n, v in values.items() if isinstance(v, bool | int | float)}


def tags(message: Mapping[str, Any]) -> dict[str, str]:
    """What a point of that message must say of itself."""
    return {name: str(message[name]) for name in TAGS if name in message}


class Checks:
    """Asks, and writes down what was answered."""

    def __init__(
        self,
        report: Report,
        broker: CentralBroker,
        database: Database,
        readers: Mapping[str, Account],
    ) -> None:
        self._report = report
        self._broker = broker
        self._database = database
        self._readers = readers

    # -- values and tags -----------------------------------------------------------------

    def values(self, placed: Placed) -> None:
        """PLC, broker and database have the same numbers, and every message is in all of them."""
        box, seen = placed.box, self._readers[placed.box.tenant].messages
        direct = _read_directly(placed)

        def same() -> bool:
            return any(
                message.get("machine") == direct.get("machine")
                and abs(message["ts"] - direct["ts"]) <= SAME_STATE_MS
                and message["values"] == direct["values"]
                for message in list(seen)
            )

        found = bool(wait_for(same, ARRIVES_S))
        what = f"{box.plc}: what the PLC holds is what the broker hands to {box.reader}"
        value = f"{len(direct['values'])} fields, {box.field} = {direct['values'].get(box.field)}"
        where = "the same in a message over TLS" if found else "in no message over TLS"
        self._report.show(what, found, f"read directly: {value}; {where}")

        messages = list(seen)
        wait_for(lambda: not self._missing(placed, messages), ARRIVES_S)
        missing = len(self._missing(placed, messages))
        wanted = sum(len(numbers(m["values"])) for m in messages)
        what = f"{box.plc}: every value of every message is in the database, equal"
        evidence = f"{wanted - missing:,} of {wanted:,} values of {len(messages):,} messages"
        self._report.show(what, wanted > 0 and not missing, evidence)
        self._tags(placed, messages)

    def _missing(self, placed: Placed, messages: list[dict[str, Any]]) -> list[str]:
        """Values that the broker has handed out and the database does not give."""
        kept = _by_field(self._database.stored(placed.box, _recent_ms()))
        return [
            f"{field} at {message['ts']}"
            for message in messages
            for field, value in numbers(message["values"]).items()
            if kept.get((field, message.get("machine")), {}).get(message["ts"]) != value
        ]

    def _tags(self, placed: Placed, messages: list[dict[str, Any]]) -> None:
        box = placed.box
        wanted = {tuple(sorted(tags(m).items())) for m in messages}
        found = {
            tuple(sorted((k, v) for k, v in s.tags.items() if k in TAGS))
            for s in self._database.stored(box, _recent_ms())
            if s.field == box.field
        }
        one = dict(min(wanted)) if wanted else {}
        words = ", ".join(f"{name}={one[name]}" for name in TAGS if name in one)
        machines = f" (and {len(wanted) - 1} more machines)" if len(wanted) > 1 else ""
        good = bool(wanted) and found == wanted
        evidence = words + machines if good else f"wanted {wanted}, found {found}"
        self._report.show(f"{box.plc}: each point says whose it is", good, evidence)

    # -- time ----------------------------------------------------------------------------

    def retention(self, placed: Placed, kept_days: int, too_old_days: int) -> None:
        """What came late is kept where the tenant's plan keeps it, and not beyond."""
        box, now = placed.box, now_ms()
        ages = {days: now - days * DAY_MS for days in (kept_days, too_old_days)}
        # Two writes: a database may refuse a whole one for one point.
        said = {d: self._database.write(box, [self._line(box, ts, 1.0)]) for d, ts in ages.items()}

        def found() -> set[int]:
            since_ms = now - (too_old_days + 1) * DAY_MS
            values = self._stored_values(box, since_ms)
            return {days for days, ts in ages.items() if ts in values}

        wait_for(lambda: kept_days in found(), ARRIVES_S)
        there = found()
        refusal = f" ({said[too_old_days]})" if said[too_old_days] else ""
        evidence = (
            f"plan {box.plan}, {box.raw_days} d: of points of {kept_days} and {too_old_days} days"
            f" ago it has {', '.join(f'{days}' for days in sorted(there)) or 'none'}{refusal}"
        )
        self._report.show(f"{box.tenant}: retention of raw values", there == {kept_days}, evidence)

    def downsampling(self, placed: Placed) -> None:
        """Six late values of one minute become its mean, least, greatest and last."""
        box = placed.box
        minute = (now_ms() - 5 * MINUTE_MS) // MINUTE_MS * MINUTE_MS
        values = (10.0, 20.0, 60.0, 50.0, 40.0, 30.0)
        lines = [
            self._line(box, minute + 5_000 + n * 10_000, value) for n, value in enumerate(values)
        ]
        wanted = {"mean": 35.0, "min": 10.0, "max": 60.0, "last": 30.0}
        self._database.write(box, lines)

        def condensed() -> dict[str, float]:
            kinds = self._database.minutes(box, minute)
            return {kind: found[minute] for kind, found in kinds.items() if minute in found}

        def made() -> bool:
            self._database.condense()
            return condensed() == wanted

        # Points are seen by a query a moment after they were written.
        wait_for(made, ARRIVES_S)
        found = condensed()
        words = ", ".join(f"{kind} {value:g}" for kind, value in sorted(found.items()))
        evidence = (
            f"{', '.join(f'{v:g}' for v in values)} within a minute, late: {words or 'nothing'}"
        )
        what = f"{box.tenant}: downsampling to minutes ({self._database.condensing})"
        self._report.show(what, found == wanted, evidence)

    def _line(self, box: Box, ts_ms: int, value: float) -> str:
        """A point in line protocol, as the box's outbox would send it late."""
        message = self._readers[box.tenant].messages[0]
        of = ",".join(f"{k}={v}" for k, v in {**tags(message), "quality": "good"}.items())
        return f"{MEASUREMENT},{of} {box.field}={value} {ts_ms * 1_000_000}"

    def _stored_values(self, box: Box, since_ms: int) -> dict[int, float]:
        """Of ``box.field``, by time."""
        found: dict[int, float] = {}
        for series in self._database.stored(box, since_ms):
            if series.field == box.field:
                found |= series.values
        return found

    # -- isolation -----------------------------------------------------------------------

    def broker_isolation(self, own: Placed, other: Placed) -> None:
        """A reader is sent its own tenant's topics; a box may not write another's."""
        tenant, reader = own.box.tenant, self._readers[own.box.tenant]
        foreign = {t for t in reader.topics if t.split("/")[1] != tenant}
        evidence = f"asked for #, was sent {len(reader.topics)} topics, {len(foreign)} of others"
        good = bool(reader.topics) and not foreign
        self._report.show(f"broker: {own.box.reader} sees {tenant} alone", good, evidence)

        topic = f"plc/{other.box.tenant}/{other.box.plc}"
        # The box's own account is busy: one account is one connection. This one may write the same.
        with Account(self._broker, f"doctor-{own.box.site}") as box:
            said = box.publish(topic)
        what = f"broker: box {own.box.site} may not write {topic}"
        self._report.show(what, said == "Not authorized", said or "it was taken")

    def wrong_password(self, placed: Placed) -> None:
        """Nobody without one."""
        with Account(self._broker, placed.box.reader, password="wrong") as nobody:
            said = nobody.refused
        what = f"broker: {placed.box.reader} with another password is not let in"
        self._report.show(what, said == "Not authorized", said or "it was let in")

    def database_isolation(self, own: Placed, other: Placed) -> None:
        """One tenant's credentials find its own, and nothing of the other."""
        who, whose = own.box.tenant, other.box.tenant
        mine = self._database.seen(own.box, who, _recent_ms())
        foreign = self._database.seen(other.box, who, _recent_ms())
        what = f"database: {who}'s credentials read nothing of {whose}"
        evidence = f"{mine} series of {who}, {foreign} of {whose}"
        self._report.show(what, mine > 0 and foreign == 0, evidence)

    # -- the agents' own metrics ---------------------------------------------------------

    def prometheus(self, port: int, boxes: list[Placed]) -> None:
        """Each box is asked, and says that its PLC is read."""
        query = f"http://{ADDRESS}:{port}/api/v1/query?query=plc_edge_plc_up"
        wanted = {(p.box.site, p.box.tenant, p.box.plc) for p in boxes}

        def up() -> set[tuple[str, str, str]] | None:
            answer = _ask(query)
            found = {
                (m["site"], m["locatario_id"], m["plc"])
                for r in answer["data"]["result"]
                if r["value"][1] == "1"
                for m in (r["metric"],)
            }
            return found if found == wanted else None

        good = wait_for(up, SCRAPED_S) is not None
        rules = _ask(f"http://{ADDRESS}:{port}/api/v1/rules")["data"]["groups"]
        count = sum(len(group["rules"]) for group in rules)
        evidence = f"plc_edge_plc_up 1 for {', '.join(sorted(p.box.plc for p in boxes))}"
        self._report.show(
            "Prometheus reads both boxes and has the alert rules",
            good and count > 0,
            f"{evidence}; {count} rules" if good else "not both are up",
        )


def _read_directly(placed: Placed) -> dict[str, Any]:
    """The first machine of the box's PLC, past all services."""
    command = [sys.executable, "-P", "-m", "services.cli.main", "read", placed.box.plc]
    done = subprocess.run(
        [*command, "--json", "-c", str(placed.file)],
        capture_output=True, text=True, check=False, timeout=READ_S,
    )  # fmt: skip
    messages: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout else []
    return messages[0] if messages else {"ts": 0, "values": {}}


def _recent_ms() -> int:
    return now_ms() - RECENT_MS


def _by_field(series: list[Series]) -> dict[tuple[str, str | None], dict[int, float]]:
    found: dict[tuple[str, str | None], dict[int, float]] = {}
    for one in series:
        found.setdefault((one.field, one.tags.get("machine")), {}).update(one.values)
    return found


def _ask(url: str) -> dict[str, Any]:
    reply = urllib3.request("GET", url, timeout=10, retries=False)
    document: dict[str, Any] = json.loads(reply.data)
    return document
