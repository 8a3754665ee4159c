"""OEE of a shift through real processes: what was told, the command, the mail at its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default

import orjson
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from bus.frames import Reply, Request
from bus.sockets import Bus
from tests.kit.common import free_port, until
from tests.kit.shift_rig import (
    MIN,
    PLANNED_MIN,
    RUNNING_MIN,
    UNPLANNED_MIN,
    ShiftWorld,
    shift_world,
)


def kept(world: ShiftWorld) -> bool:
    """Whether the whole story is in the history: it is known but for its silence."""
    bus = Bus(world.run)
    try:
        port = bus.connect("history")
        until(lambda: port.send(Request("oee", {"shift": "last"})), 5, "nobody takes the question")
        assert port.socket.poll(5_000), "nobody answers"
        reply = port.receive()
    finally:
        bus.close()
    assert isinstance(reply, Reply)
    parts: dict[str, int] = reply.result["machines"][0]["parts_ms"]
    return parts["unknown"] < 21 * MIN


def test_a_shift_from_the_reader_to_the_command() -> None:
    with shift_world() as world:
        with world.historian():
            world.tell()
            until(lambda: kept(world), 30, "the story is not kept")
            running = world.oee(world.shift)
        # Nobody runs: the command reads the files itself, and says the same.
        assert world.oee("last") == running
        parts = running["parts_ms"]
        assert sum(parts.values()) == 480 * MIN
        # The value before the silence held for 66 s: the last minute was 199, so until 200:06.
        assert parts["unknown"] == 19 * MIN + 54_000
        assert parts["running"] == RUNNING_MIN * MIN + 6_000
        assert parts["stopped_unplanned"] == UNPLANNED_MIN * MIN
        assert parts["stopped_planned"] == PLANNED_MIN * MIN
        assert running["pieces"] == {"good": 700, "bad": 20, "total": 720}
        ran_ms = parts["running"]
        assert running["availability"] == ran_ms / (ran_ms + UNPLANNED_MIN * MIN)
        assert running["performance"] == pytest.approx(720 * 6_000 / ran_ms)
        assert running["quality"] == 700 / 720
        assert running["reasons_ms"] == {"7": 30 * MIN, "3": 43 * MIN}

        said = world.plc_edge("oee", "last")
        assert said.returncode == 0, said.stderr
        assert "setup <M12> (planned)" in said.stdout
        assert "falta [b] de material" in said.stdout
        shifts = world.plc_edge("shifts")
        assert world.shift in shifts.stdout

        page = world.run / "turno.html"
        assert world.plc_edge("oee", "last", "--html", str(page)).returncode == 0
        html = page.read_text()
        assert "setup &lt;M12&gt; (planejada)" in html
        assert ">700<" in html


WRONG = [
    (["oee", "2020-01-01/noite"], "there is no shift '2020-01-01/noite'"),
    (["oee", "last", "--from", "-1h"], "give a shift, or --from and --to"),
    (["oee", "--from", "2010-01-01", "--to", "2026-01-01"], "at most 400 days"),
    (["shifts", "--from", "manhana"], "a time is"),
]


def test_what_is_asked_wrongly_is_told() -> None:
    with shift_world() as world, world.historian():
        for args, said in WRONG:
            done = world.plc_edge(*args)
            assert done.returncode in (1, 2), args
            assert said in " ".join(done.stderr.split()), args
            assert "Traceback" not in done.stderr, args


class Inbox:
    """A mail server that keeps what comes; ``answer`` is what it says to it."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.answer = "250 OK"

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content, policy=default))
        return self.answer


@contextmanager
def mail_server() -> Iterator[tuple[Inbox, int]]:
    inbox, port = Inbox(), free_port()
    server = Controller(inbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield inbox, port
    finally:
        server.stop()


def earlier_life(world: ShiftWorld) -> None:
    """The first life of a historian tells nobody of the past: this is a later one."""
    folder = world.run / "history"
    folder.mkdir(exist_ok=True)
    (folder / "reports.json").write_bytes(orjson.dumps({"since_ms": world.begin_ms, "done": {}}))


def test_a_report_is_mailed_once() -> None:
    with mail_server() as (inbox, port):
        email = (
            f"  email: {{host: 127.0.0.1, port: {port}, security: none,"
            " from: caixa@example.com, to: [chefe@example.com]}"
        )
        with shift_world(email) as world:
            earlier_life(world)
            world.tell()
            inbox.answer = "451 later"
            with world.historian() as historian:
                until(lambda: historian.said("report_failed"), 30, historian.stderr)
            assert inbox.mails == []
            inbox.answer = "250 OK"
            with world.historian() as historian:
                until(lambda: inbox.mails, 30, historian.stderr)
                until(lambda: historian.said("report_sent"), 10, historian.stderr)
            # Killed, started again: it knows.
            with world.historian() as historian:
                until(lambda: kept(world), 30, historian.stderr)
                world.say(482, rodando=True, boas=664, ruins=20, codigo=0)
                world.source.drain()
                look_again = 7  # s; it looks every 5
                with pytest.raises(AssertionError):
                    until(lambda: len(inbox.mails) > 1, look_again, "sent once")
            (mail,) = inbox.mails
            assert re.search(r"planta-sp: Relatório do turno .* - OEE \d\d,\d %", mail["Subject"])
            body = mail.get_body(("plain",)).get_content()  # type: ignore[attr-defined]
            assert "setup <M12> (planejada)" in body
            assert "Disponibilidade" in body
            assert [part.get_filename() for part in mail.walk() if part.get_filename()] == [
                f"{world.shift.replace('/', '-')}.html"
            ]
