"""Targets: what waits at each, the migration that tells them apart, and refusals in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from services.control_plane import db, effects
from services.control_plane.db import Database
from services.control_plane.effects import PENDING, READY, REFUSED
from services.control_plane.outside.http import Http
from services.control_plane.outside.influxdb import is_platforms
from services.control_plane.worker import Away, Refused
from tests.kit import postgres
from tests.kit.centre import DATABASES
from tests.kit.common import free_port
from tests.kit.grafana_http import StandIn
from tests.kit.http_faults import AWAY, CUT, PASS, UNAUTHORIZED, HttpFaults

TARGETS = ("broker", "influxdb")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/c.db")
    made.migrate()
    with made.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_head VALUES (1, 0, '')")
    yield made
    made.close()


def test_a_target_forgets_its_own_alone(database: Database) -> None:
    with database.writing(None) as session:
        for target in TARGETS:
            effects.add(session, target, "acme", 10)
        (turn,) = effects.due(session, "influxdb", 10)
        effects.postpone(session, turn, 10, "no")
        (turn,) = effects.due(session, "broker", 10)
        effects.finish(session, turn, 10)
        assert effects.due(session, "broker", 10) == []
        assert effects.next_due_ms(session, "broker") is None
        assert effects.is_asked(session, "influxdb", "acme")
        assert not effects.is_asked(session, "broker", "acme")


def test_what_waits_is_told_once_for_each_tenant_and_target(database: Database) -> None:
    with database.writing(None) as session:
        for target, tenant_id, due_ms in (
            ("influxdb", "a", 10),
            ("broker", "b", 10),
            ("broker", "a", 5_000),  # a rotation's end: no debt yet
            ("grafana", "a", 10),  # which is not configured any more
        ):
            effects.add(session, target, tenant_id, due_ms)
        (turn,) = effects.due(session, "influxdb", 10)
        effects.postpone(session, turn, 10, "no")
        effects.add(session, "influxdb", "a", 20)
    with database.reading(None) as session:
        found = effects.waiting(session, TARGETS, 100)
        assert [(w.tenant_id, w.target, w.state, w.attempts, w.error) for w in found] == [
            ("a", "influxdb", REFUSED, 1, "no"),
            ("b", "broker", PENDING, 0, None),
        ]
        assert effects.state(found) == REFUSED
        assert effects.state(found[1:]) == PENDING
    with database.reading("b") as session:
        assert [w.tenant_id for w in effects.waiting(session, TARGETS, 100)] == ["b"]
    assert effects.state([]) == READY


@pytest.mark.parametrize("kind", DATABASES)
def test_what_waited_before_there_were_targets_is_the_brokers(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db" if kind == "sqlite" else postgres.cluster().create()
    database = Database(url)
    with database.engine.connect() as connection, connection.begin():
        config = db._alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO effects (tenant_id, due_ms, attempts, error)"
                " VALUES ('acme', 7, 2, 'no')"
            )
        )
    assert database.migrate()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_head VALUES (1, 0, '')")
    with database.writing(None) as session:
        effects.add(session, "influxdb", "acme", 9)
    with database.reading(None) as session:
        found = effects.waiting(session, TARGETS, 100)
        assert [(w.target, w.attempts, w.error) for w in found] == [
            ("broker", 2, "no"),
            ("influxdb", 0, None),
        ]
        assert found[0].since_ms == 7
    database.close()


RESOURCE = st.fixed_dictionaries(
    {"type": st.just("buckets")}, optional={"id": st.just("1"), "orgID": st.just("2")}
)


@given(st.lists(st.fixed_dictionaries({"action": st.just("read"), "resource": RESOURCE})))
def test_who_reaches_beyond_one_organisation_is_the_platforms(rights: list[dict]) -> None:  # type: ignore[type-arg]
    bounded = all({"id", "orgID"} & set(r["resource"]) for r in rights)
    assert is_platforms({"permissions": rights}) == (not bounded)


# -- the client ------------------------------------------------------------------------------


@pytest.fixture
def way() -> Iterator[HttpFaults]:
    with StandIn() as grafana, HttpFaults(grafana.url) as way:
        yield way


def client(url: str) -> Http:
    return Http(
        "Grafana", url, None, lambda: {"Authorization": "Basic YWRtaW46Z2VoZWltLWdyYWZhbmE="}
    )


def test_a_read_is_repeated_and_a_change_never(way: HttpFaults) -> None:
    asked = client(way.url)
    way.once("GET", "/name/x", AWAY)
    assert asked.find("/api/orgs/name/x") is None
    assert [f for _, _, f in way.seen] == [AWAY, PASS]
    way.seen.clear()
    way.all(CUT)
    with pytest.raises(Refused, match="ended the connection"):
        asked.ask("POST", "/api/orgs", {"name": "x"})
    assert len(way.seen) == 1
    way.all(AWAY)
    with pytest.raises(Away, match="answers 503: made up"):
        asked.ask("POST", "/api/orgs", {"name": "y"})
    assert len(way.seen) == 2
    with pytest.raises(Away) as caught:
        asked.find("/api/orgs/name/outra")
    assert "outra" not in str(caught.value), "every tenant is shown why nobody is served"
    way.all(PASS)
    with pytest.raises(Refused, match="Organization name taken"):
        asked.ask("POST", "/api/orgs", {"name": "x"})


def test_words_of_who_cannot_be_asked_hold_no_secret(way: HttpFaults) -> None:
    way.all(UNAUTHORIZED)
    nobody = f"http://127.0.0.1:{free_port()}"
    for url, words in ((way.url, "refuses the credentials"), (nobody, "Connection refused")):
        with pytest.raises(Away, match=words) as caught:
            client(url).ask("GET", "/api/orgs/name/x")
        assert "YWRtaW4" not in str(caught.value)
    broken = Http("Grafana", way.url, None, lambda: {"Authorization": "geheim\nx"})
    with pytest.raises(Away, match="what no HTTP header may") as caught:
        broken.ask("GET", "/api/orgs/name/x")
    assert "geheim" not in str(caught.value)
