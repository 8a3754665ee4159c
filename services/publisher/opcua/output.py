"""The ``opcua`` output: rows and heartbeats into the address space of a server of this process.

A row is settled when it is the newest of its record, or older than that: nobody needs to read it.
So rows never wait for clients, and this output's ``pending`` says nothing of them. The server's
thread takes the newest message of each record when it comes to it; what it is too slow for is
replaced, not queued.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import orjson

from bus.frames import SAMPLE_ROW, Reply, Request
from bus.sockets import Port
from services.consumer.row import Row
from services.opcua import certificates
from services.opcua.certificates import Own, TrustList
from services.publisher.opcua import users
from services.publisher.opcua.latest import Latest
from services.publisher.opcua.server import Running, Settings
from services.publisher.opcua.space import Key, Space, key_of
from services.publisher.outputs.base import CLOSE_WAIT_S, Desk
from services.runtime import secrets
from services.runtime.errors import ConfigError, Problem
from services.runtime.process import Process

WINDOW = 200
RETRY_S = 5.0
ALARMS_S = 1.0
ALARMS_WAIT_S = 5.0
REFUSALS_S = 1.0
"""At most one line in so long about clients that are refused."""


class OpcuaOutput:
    """One server. Its thread calls ``_say`` and ``_ended`` only; the rest is the process's loop."""

    window = WINDOW

    def __init__(self, process: Process, desk: Desk) -> None:
        self._process = process
        self._desk = desk
        config = process.config["output"]
        self._settings = _settings(process, config)
        self.target = f"opc.tcp://{config['host']}:{config['port']}"
        self._latest = Latest(process.runtime / f"opcua-{config['name']}.latest")
        self._said: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        process.on_readable(self._wake, self._hear)
        self._lock = threading.Lock()
        self._waiting: dict[Key, dict[str, Any]] = {}
        """Messages for the server's thread."""
        self._running: Running | None = None
        self._beats: dict[str, dict[str, Any]] = {}
        self._refused_s = 0.0
        self._no_room = False
        self._closing = False
        self._alarms: Port | None = None
        self._is_asked = False
        """The alarm engine owes an answer."""
        self._answered_s = time.monotonic()
        process.on_config(lambda _config: self._configure())
        process.every(ALARMS_S, self._ask_alarms)
        self._start()

    # -- the server ----------------------------------------------------------------------

    def _start(self) -> None:
        if not self._closing:
            self._running = Running(self._settings, self._say, self._ended)
            self._running.start()

    def _say(self, level: str, code: str, text: str) -> None:
        self._tell(lambda: self._heard(level, code, text))

    def _ended(self, error: BaseException | None) -> None:
        self._tell(lambda: self._lost(error))

    def _tell(self, call: Callable[[], None]) -> None:
        self._said.put(call)
        os.eventfd_write(self._wake, 1)

    def _hear(self) -> None:
        os.eventfd_read(self._wake)
        while not self._said.empty():
            self._said.get()()

    def _heard(self, level: str, code: str, text: str) -> None:
        if code == "listening":
            self._desk.status("ok")
            self._configure()
        elif time.monotonic() - self._refused_s >= REFUSALS_S:
            self._refused_s = time.monotonic()
            self._process.event(level, code, text)

    def _lost(self, error: BaseException | None) -> None:
        self._running = None
        if self._closing:
            return
        words = getattr(error, "strerror", None) or repr(error)
        if error is not None and not isinstance(error, OSError):
            trace = "".join(traceback.format_exception(error))
            self._process.log.error("server fault", traceback=trace)
        self._desk.status("down", "not_listening", f"cannot serve at {self.target}: {words}")
        self._process.at(time.monotonic() + RETRY_S, self._start)

    def _do(self, work: Callable[[Space], Any]) -> None:
        if self._running is not None:
            self._running.do(work)

    def _configure(self) -> None:
        """The nodes, from the lists of PLCs and alarm rules; and all that is known of them."""
        plcs, alarms = self._process.config["plcs"], self._process.config["alarms"]
        keys = {(p["id"], g["name"], m) for p in plcs for g in p["groups"] for m in g["machines"]}
        self._keep(lambda: self._latest.keep(keys))
        messages, beats = self._latest.messages(), dict(self._beats)

        async def work(space: Space) -> None:
            await space.configure(plcs, [(a["locatario"], a["name"]) for a in alarms])
            await space.take(messages)
            await self._take(space)  # what came while there was no server
            for plc, beat in beats.items():
                await space.beat(plc, beat)

        self._do(work)

    # -- rows and heartbeats -------------------------------------------------------------

    def deliver(self, rows: Sequence[Row]) -> None:
        """Takes rows; gaps have no place among newest values."""
        newest: dict[Key, dict[str, Any]] = {}
        for row in rows:
            if row.kind != SAMPLE_ROW:
                continue
            message = orjson.loads(row.body)
            if self._latest.add(message, row.body):
                newest[key_of(message)] = message
        self._keep(self._latest.flush)
        if newest:
            with self._lock:
                is_asked = bool(self._waiting)
                self._waiting |= newest
            if not is_asked:
                self._do(self._take)
        self._desk.delivered(rows)

    async def _take(self, space: Space) -> None:
        """In the server's thread."""
        with self._lock:
            messages, self._waiting = self._waiting, {}
        await space.take(messages.values())

    def _keep(self, write: Callable[[], None]) -> None:
        """The values are served all the same; after a kill some would be away for a while."""
        try:
            write()
        except OSError as e:
            if not self._no_room:
                self._process.event("warning", "latest_not_kept", f"newest values: {e.strerror}")
            self._no_room = True
        else:
            self._no_room = False

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Takes a heartbeat."""
        if not payload:
            self._beats.pop(plc, None)
            return
        heartbeat = self._beats[plc] = orjson.loads(payload)
        self._do(lambda space: space.beat(plc, heartbeat))

    # -- alarms --------------------------------------------------------------------------

    def _ask_alarms(self) -> None:
        if not self._process.config["alarms"]:
            return
        now_s = time.monotonic()
        if now_s - self._answered_s > ALARMS_WAIT_S:
            self._answered_s = now_s
            self._do(lambda space: space.ring(None))
            # A REQ socket whose question was lost asks no other: a new one.
            self._drop_alarms()
        if self._alarms is None:
            self._alarms = self._process.bus.connect("alarms")
            self._process.on_readable(self._alarms, self._answered)
        if not self._is_asked:  # and where nobody is there yet: in a second
            self._is_asked = self._alarms.send(Request("list", {}))

    def _drop_alarms(self) -> None:
        if self._alarms is not None:
            self._process.forget(self._alarms)
            self._process.bus.release(self._alarms)
        self._alarms, self._is_asked = None, False

    def _answered(self) -> None:
        while self._alarms is not None and (frame := self._alarms.receive()) is not None:
            self._is_asked, self._answered_s = False, time.monotonic()
            if isinstance(frame, Reply) and not frame.error:
                alarms = frame.result["alarms"]
                self._do(lambda space, said=alarms: space.ring(said))  # type: ignore[misc]

    # -- the rest ------------------------------------------------------------------------

    def details(self) -> dict[str, object]:
        """For the State frame."""
        running = self._running
        return {
            "host": self.target.removeprefix("opc.tcp://"),
            "sessions": running.sessions if running else 0,
            "watched": running.items if running else 0,
        }

    def close(self) -> None:
        """Closes the sessions."""
        self._closing = True
        if self._running is not None:
            self._running.close(CLOSE_WAIT_S)


def _settings(process: Process, config: dict[str, Any]) -> Settings:
    """Raises ConfigError."""
    name, site = config["name"], process.config["site"]
    folder = process.state_dir / "opcua_server" / name
    trust = TrustList(Path(config["trusted"] or folder / "trusted"), folder / "rejected")
    uri = certificates.application_uri(site, name)
    key = f"outputs.{name}"
    try:
        trust.make()
        if config["certificate"]:
            own = Own(Path(config["certificate"]), Path(config["key"]))
        else:
            own = certificates.own(folder, uri, [config["host"], os.uname().nodename, "localhost"])
    except OSError as e:
        problem = Problem("config.yaml", key, f"{e.filename}: {e.strerror}")
        raise ConfigError([problem]) from None
    try:
        accounts = users.accounts(config["users"], secrets.resolve)
    except ValueError as e:
        raise ConfigError([Problem("config.yaml", f"{key}.users", str(e))]) from None
    return Settings(
        host=config["host"],
        port=config["port"],
        uri=uri,
        namespace=f"urn:plc-edge:{site}:values",
        policies=config["policies"],
        modes=config["modes"],
        insecure=config["insecure"],
        anonymous=config["anonymous"],
        accounts=accounts,
        own=own,
        trust=trust,
        history=process.runtime if process.config["history"] else None,
    )


def make(process: Process, desk: Desk) -> OpcuaOutput:
    """For the table of kinds."""
    return OpcuaOutput(process, desk)
