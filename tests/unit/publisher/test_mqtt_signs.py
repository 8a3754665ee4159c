"""From the ends of connections to their cause; the clock is given."""

from __future__ import annotations

import pytest

from services.mqtt.packets import reason_text
from services.publisher.outputs.mqtt_signs import ENDS, MUTE_ENDS, WINDOW_S, Signs

HOST = "broker"
CLOSED = ("lost", "broker:1883 closed the connection")
TAKEN = ("broker", f"broker ended the connection: {reason_text(0x8E)}")


def up_and_down(signs: Signs, now_s: float, end: tuple[str, str] = CLOSED) -> bool:
    signs.look(HOST, True, "", "", now_s)
    return signs.look(HOST, False, *end, now_s)


def code(signs: Signs, now_s: float) -> str:
    fault = signs.verdict(now_s)
    return fault.code if fault else ""


def test_accepted_and_closed_again_and_again() -> None:
    signs = Signs("client id planta-sp")
    for n in range(ENDS - 1):
        up_and_down(signs, float(n))
    assert code(signs, ENDS) == ""
    up_and_down(signs, float(ENDS))
    assert code(signs, ENDS) == "unstable"
    assert "client id planta-sp" in str(signs.verdict(ENDS))
    signs.look(HOST, True, "", "", ENDS)
    assert code(signs, ENDS + 1) == "unstable"  # up for now: the other one will be back
    assert code(signs, WINDOW_S + 1) == ""


def test_several_hosts_that_close_may_be_a_cluster_that_has_lost_a_node() -> None:
    signs = Signs("x")
    for n, host in enumerate(("a", "b", "a")):
        signs.look(host, True, "", "", float(n))
        signs.look(host, False, *CLOSED, float(n))
    assert "lost a node" in str(signs.verdict(ENDS))
    one = Signs("x")
    for n in range(ENDS):
        up_and_down(one, float(n))
    assert "lost a node" not in str(one.verdict(ENDS))


def test_now_and_then_is_no_sign() -> None:
    signs = Signs("x")
    for n in range(20):
        up_and_down(signs, n * WINDOW_S / 2)
        assert code(signs, n * WINDOW_S / 2) == ""


@pytest.mark.parametrize(
    "end", [("timeout", "broker does not answer"), ("broker", "server shutting down (0x8b)")]
)
def test_an_end_with_a_cause_is_no_sign(end: tuple[str, str]) -> None:
    signs = Signs("x")
    for n in range(9):
        up_and_down(signs, float(n), end)
    assert code(signs, 9) == ""


def test_taken_over_is_said_by_the_broker() -> None:
    signs = Signs("client id planta-sp or account edge")
    assert code(signs, 0.0) == ""
    up_and_down(signs, 10.0, TAKEN)
    signs.look(HOST, True, "", "", 11.0)
    assert code(signs, 11.0) == "taken_over"
    assert code(signs, 10.0 + WINDOW_S) == ""


def test_closed_before_a_word_is_asked_for_tls_once() -> None:
    signs = Signs("x")
    asked = [signs.look(HOST, False, *CLOSED, float(n)) for n in range(6)]
    assert asked == [n == MUTE_ENDS - 1 for n in range(6)]
    assert code(signs, 6) == ""
    up_and_down(signs, 7.0)
    assert [signs.look(HOST, False, *CLOSED, 8.0) for _ in range(MUTE_ENDS)][-1]
