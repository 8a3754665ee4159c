"""A stretch of the history to an output once more: whole, slower than the rest, over restarts."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import yaml

from bus.frames import Reply, Request
from bus.sockets import Bus
from services.historian.asking import ENOUGH_MESSAGES
from services.metrics.words import STATIC
from services.runtime.clock import now_ms
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.http_sink import HttpSink
from tests.kit.opcua_rig import body
from tests.kit.past import historian
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import http_config, run_folder
from tests.kit.site import PLC_EDGE

START = now_ms() // 3_600_000 * 3_600_000 - 86_400_000
COUNT = 1_500


def past() -> list[tuple[str, str, bytes]]:
    """A message a second, every tenth of another PLC; and two hours later a last one."""
    out = []
    for n in range(COUNT):
        plc = "forno-02" if n % 10 == 9 else "prensa-01"
        values = {"temperatura": n / 8, "ciclos": n, "grande": "9007199254740995"}
        out.append(("acme", plc, body(n + 1, values, plc=plc, ts=START + 1_000 * n)))
    out.append(("acme", "prensa-01", body(COUNT + 1, {"ciclos": 0}, ts=START + 7_200_000)))
    return out


def config(run: Path, url: str) -> dict[str, Any]:
    return {**http_config(run, url, batch=10), "history": True}


def ask(run: Path, verb: str, **args: Any) -> Any:
    bus = Bus(run)
    try:
        port = bus.connect("backfill", "web")
        until(lambda: port.send(Request(verb, args)), 10, "nobody takes the request")
        assert port.socket.poll(5_000), "no answer"
        reply = port.receive()
        assert isinstance(reply, Reply)
        return reply.error or reply.result
    finally:
        bus.close()


def stretch(run: Path, begin_s: float, end_s: float, rate: float, **more: Any) -> Any:
    return ask(run, "send", **{
        "plc": "prensa-01", "locatario": "acme", "begin_ms": START + round(1_000 * begin_s),
        "end_ms": START + round(1_000 * end_s), "rate_per_s": rate, **more,
    })  # fmt: skip


def came(sink: HttpSink) -> list[dict[str, Any]]:
    return [m for post in sink.taken for m in orjson.loads(post.body) if m.get("replay")]


def test_what_was_delivered_comes_again_as_it_was() -> None:
    with (
        run_folder() as run,
        HttpSink() as sink,
        DispatchPeer(run, "web") as peer,
        historian(run, past()),
        service(config(run, sink.url)) as output,
    ):
        begun_s = time.monotonic()
        job = stretch(run, 1_200, 10_000, 90)
        assert (job["plc"], job["sent"]) == ("prensa-01", 0)
        peer.add(200)
        peer.wait_done(20)  # the live ones pass
        until(lambda: output.said("backfill_done"), 30, output.stderr)
        wanted = [orjson.loads(b) for _, p, b in past() if p == "prensa-01"]
        wanted = [m for m in wanted if m["ts"] >= START + 1_200_000]
        assert came(sink) == [{**m, "replay": True} for m in wanted]
        assert time.monotonic() - begun_s > len(wanted) / 90 - 1.5, "faster than it may"
        assert ask(run, "list") == {"jobs": []}
        assert output.said(f"is sent: {len(wanted)} messages, 0 refused")
        # The panel says it in its language, from these.
        shown = orjson.loads((STATIC / "words.json").read_bytes())["events"]["backfill_done"]["pt"]
        (line,) = (s for s in output.text if "backfill_done" in s)
        assert all(f'"{name}":' in line for name in re.findall(r"\{(\w+)\}", shown))
        assert output.terminate() == 0


def test_it_goes_on_after_kills_and_with_a_destination_that_is_away() -> None:
    with run_folder() as run, HttpSink() as sink, DispatchPeer(run, "web"), historian(run, past()):
        wanted = {n + 1 for n in range(COUNT) if n % 10 != 9}
        for n, point in enumerate(("backfill.saving:2", "backfill.saving", "backfill.saving:3")):
            doomed = Service(config(run, sink.url), {"PLC_EDGE_FAILPOINT": point})
            if not n:
                stretch(run, 0, COUNT, 500)
            assert doomed.process.wait(20) == -9, doomed.stderr()
            doomed.end()
        sink.answer = lambda _post: (503, {}, b"")
        with service(config(run, sink.url)) as output:
            before = len(sink.posts)
            until(lambda: len(sink.posts) > before + 2, 20, output.stderr)
            (job,) = ask(run, "list")["jobs"]
            assert START < job["at_ms"] < START + 1_000 * COUNT
            sink.answer = lambda _post: (204, {}, b"")
            until(lambda: output.said("backfill_done"), 30, output.stderr)
        times = Counter(m["seq"] for m in came(sink))
        assert times.keys() == wanted
        # A piece at most for each of four ends.
        assert sum(times.values()) - len(times) <= 4 * (ENOUGH_MESSAGES + 10)


def test_what_cannot_be_asked_and_what_is_given_up() -> None:
    with (
        run_folder() as run,
        HttpSink() as sink,
        DispatchPeer(run, "web"),
        service(config(run, sink.url)) as output,
    ):
        assert "ends before it begins" in stretch(run, 9, 9, 50)
        assert "in the future" in stretch(run, 9e6, 9e7, 50)
        assert "messages a second" in stretch(run, 0, 9, 1e9)
        assert "no stretch 7" in ask(run, "cancel", id=7)
        assert ask(run, "purge") == "that is no request"
        first, second = stretch(run, 0, 9, 50), stretch(run, 0, 9, 50)
        until(lambda: "not there" in ask(run, "list")["jobs"][0]["waits"], 10, output.stderr)
        for _ in range(18):
            assert isinstance(stretch(run, 0, 9, 50), dict)
        assert "20 stretches wait already" in stretch(run, 0, 9, 50)
        assert ask(run, "cancel", id=first["id"])["id"] == first["id"]
        with historian(run, past()):
            until(lambda: output.said(f"stretch {second['id']} of prensa-01 is sent: 9"), 20,
                  output.stderr)  # fmt: skip
        assert output.terminate() == 0


def test_the_command() -> None:
    with (
        run_folder() as run,
        HttpSink() as sink,
        DispatchPeer(run, "web"),
        service(config(run, sink.url)),
    ):
        fields = [{"name": "ciclos", "address": "DB1.DBD0:DINT"}]
        site = {
            "site": "planta-sp", "locatario": "acme", "history": {},
            "paths": {"state": str(run), "runtime": str(run)},
            "plcs": [{"id": "prensa-01", "host": "h",
                      "groups": [{"name": "g1", "fields": fields}]}],
            "outputs": [{"name": "web", "type": "http", "url": sink.url, "locatarios": ["acme"]},
                        {"name": "scada", "type": "opcua", "anonymous": True, "insecure": True}],
        }  # fmt: skip
        file = run / "config.yaml"
        file.write_text(yaml.safe_dump(site))

        def command(*words: str) -> tuple[int, str]:
            done = subprocess.run(
                [*PLC_EDGE, "backfill", *words, "-c", str(file)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            return done.returncode, " ".join((done.stdout + done.stderr).split())

        assert command("web") == (0, "nothing is left to be sent to web")
        code, said = command("web", "prensa-01", "--from", "-2h", "--to", "-1h")
        assert (code, said[:10]) == (0, "stretch 1:")
        code, said = command("web")
        assert "stretch 1: prensa-01" in said
        assert "0 sent, 0 refused, 0%, waits: the historian is not there" in said
        assert command("web", "--cancel", "1") == (0, "stretch 1 is given up: 0 messages were sent")
        for words, why in (
            (("web", "prensa-09", "--from", "-2h"), "no PLC is named 'prensa-09': prensa-01"),
            (("wep", "prensa-01", "--from", "-2h"), "no output is named 'wep': web, scada"),
            (("scada", "prensa-01", "--from", "-2h"), "type opcua takes no past messages"),
            (("web", "prensa-01"), "say since when: --from"),
            (("web", "prensa-01", "--from", "soon"), "--from: 'soon' is no time"),
        ):
            code, said = command(*words)
            assert code == 2, said
            assert said.startswith(why)
