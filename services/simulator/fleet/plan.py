"""What the boxes of a fleet have in common: one checked configuration, repeated under other names.

Everything that a box's messages and connections depend on comes from there, by the way it comes to
a real box (``render``): groups, scan times, heartbeats, broker, accounts, window, ``store.replay``,
``store.max_age``, ``store.commit``. Every scan is a message, as with ``publish: always``.
"""

from __future__ import annotations

from typing import Any

from bus.topology import process_name
from services.reader.message import Message
from services.runtime.errors import ConfigError, Problem
from services.runtime.render import render
from services.runtime.site import Site
from services.s7.field import Field
from services.simulator.fleet.rows import MadeRows
from services.simulator.fleet.schedule import Scanned, Schedule
from services.simulator.fleet.values import MAX_VALUES, MOMENTS, Filmed, Moment
from services.simulator.site import stations

# As long as names may be (CONTRACT §3).
NAME_MAX = 32


class Plan:
    """``box(n)``: the publisher's configuration of box ``n``, and its rows. ``tenants``: the boxes
    are shared out among so many copies of the configured tenants.
    """

    def __init__(self, site: Site, *, tenants: int = 1, seed: int = 1) -> None:
        """Raises ConfigError where the configuration cannot be a fleet's."""
        rendered = render(site)
        self._file = str(site.config.file)
        found = [p for p in rendered.values() if p["folder"] == "publisher"]
        found = [p for p in found if p["output"]["type"] == "mqtt"]
        if len(found) != 1:
            hint = "leave one output of `type: mqtt`: it is the one that all boxes have"
            raise self._wrong("outputs", f"{len(found)} MQTT outputs", hint)
        self._publisher = found[0]
        self._tenants, self._seed = tenants, seed
        self.output: str = self._publisher["item"]
        store = rendered[process_name("store_forward")]["store"]
        self.replay: dict[str, Any] = store["replay"]
        self.commit_ms = round(store["commit_ms"])
        """Messages wait so long for others (``store.commit``)."""
        self._keep_ms = round(store["max_age_s"] * 1_000)
        self._readers = [rendered[process_name("reader", p.id)] for p in site.config.plcs]
        self.schedule, self._records = self._lay_out()
        self._moments = self._film(site)

    def _wrong(self, key: str, message: str, hint: str) -> ConfigError:
        return ConfigError([Problem(self._file, key, message, hint=hint)])

    def _lay_out(self) -> tuple[Schedule, list[tuple[int, dict[str, Any], str | None]]]:
        """When what is read, and (PLC, group, machine) of each record."""
        records: list[tuple[int, dict[str, Any], str | None]] = []
        scanned = []
        for n, reader in enumerate(self._readers):
            for group in reader["groups"]:
                scan_ms = max(1, round(group["scan_s"] * 1_000))
                first = len(records)
                records += [(n, group, name) for name, _ in group["machines"]]
                phase_ms = scan_ms * n // len(self._readers)
                scanned.append(Scanned(n, scan_ms, phase_ms, range(first, len(records))))
        try:
            return Schedule(len(self._readers), scanned), records
        except ValueError as e:
            hint = "choose scan times that are multiples of one another"
            raise self._wrong("plcs", str(e), hint) from None

    def _film(self, site: Site) -> list[list[Moment]]:
        """The moments of each record."""
        found: list[list[Moment]] = []
        made = stations(site, self._seed, 480, 8)
        for (_, station, mover), reader in zip(made, self._readers, strict=True):
            filmed = [
                Filmed(station, [Field.from_dict(f) for f in group["fields"]], base)
                for group in reader["groups"]
                for _, base in group["machines"]
            ]
            values = sum(f.size for f in filmed) * len(self._readers)
            for _ in range(max(2, min(MOMENTS, MAX_VALUES // values))):
                mover.advance()
                for f in filmed:
                    f.take()
            found += [f.moments for f in filmed]
        return found

    # -- one box -------------------------------------------------------------------------

    def box(self, n: int) -> dict[str, Any]:
        """What ``apply`` would have rendered for the publisher of box ``n``, from 1. Raises
        ConfigError where a name becomes too long.
        """
        p, suffix = self._publisher, f"-{n:04d}"
        site = self._name("site", p["site"] + suffix)

        def tenant(name: str) -> str:
            if self._tenants == 1:
                return name
            return self._name("locatario", f"{name}-{(n - 1) % self._tenants + 1:02d}")

        def account(given: dict[str, Any]) -> dict[str, Any]:
            username = given["username"]
            return {**given, "username": username and username.replace("{site}", site)}

        plcs = [
            {
                **plc,
                "id": self._name("id", plc["id"] + suffix),
                "locatario": tenant(plc["locatario"]),
                "host": f"10.{n >> 8 & 255}.{n & 255}.{i % 250 + 1}",
            }
            for i, plc in enumerate(p["plcs"])
        ]
        out = account(p["output"])
        out["accounts"] = {tenant(name): account(a) for name, a in out["accounts"].items()}
        if out["locatarios"] is not None:
            out["locatarios"] = [tenant(name) for name in out["locatarios"]]
        return {**p, "site": site, "locatario": tenant(p["locatario"]), "output": out, "plcs": plcs}

    def _name(self, key: str, name: str) -> str:
        if len(name) > NAME_MAX:
            hint = f"choose a shorter one: a box's number follows it, and names hold {NAME_MAX}"
            raise self._wrong(key, f"{name} is too long", hint)
        return name

    def rows(self, n: int, config: dict[str, Any], begin_ms: int) -> MadeRows:
        """What box ``n``, of ``config``, reads from ``begin_ms`` on."""
        messages = [
            Message(
                site=config["site"],
                locatario=config["plcs"][plc]["locatario"],
                plc=config["plcs"][plc]["id"],
                ip=config["plcs"][plc]["host"],
                group=group["name"],
                measurement=group["measurement"],
                db=group["db"],
                machine=machine,
            )
            for plc, group, machine in self._records
        ]
        return MadeRows(
            self.output,
            config["site"],
            [(plc["id"], plc["locatario"]) for plc in config["plcs"]],
            self.schedule,
            messages,
            self._moments,
            begin_ms=begin_ms,
            first_step=n * 37 + self._seed,
            keep_ms=self._keep_ms,
        )


def made_up(broker: tuple[str, int], plcs: int, scan: str, values: int) -> dict[str, Any]:
    """A configuration for those who give none: ``values`` of each PLC as a plant's DB has them,
    half of them REAL, the others INT and BOOL.
    """
    reals, ints = (values + 1) // 2, values * 3 // 10
    fields = [{"name": f"r{i}", "address": f"DB500.DBD{4 * i}:REAL"} for i in range(reals)]
    at = 4 * reals
    fields += [{"name": f"i{i}", "address": f"DB500.DBW{at + 2 * i}:INT"} for i in range(ints)]
    at += 2 * ints
    bools = range(values - reals - ints)
    fields += [{"name": f"b{i}", "address": f"DB500.DBX{at + i // 8}.{i % 8}"} for i in bools]
    group = {"name": "db500", "db": 500, "scan": scan, "publish": "always", "fields": fields}
    host, port = broker
    return {
        "site": "caixa",
        "locatario": "acme",
        "plcs": [
            {"id": f"clp-{n + 1:02d}", "host": f"10.0.{n // 250}.{n % 250 + 1}", "groups": [group]}
            for n in range(plcs)
        ],
        "outputs": [
            {"name": "central", "type": "mqtt", "host": host, "port": port, "tls": False,
             "window": 100},
        ],
        "store": {"replay": {"mode": "lanes"}},
    }  # fmt: skip
