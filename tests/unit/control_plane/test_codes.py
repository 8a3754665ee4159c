"""Claim codes as people type them, and strangers who try many."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from services.control_plane.fleet import codes
from services.control_plane.fleet.codes import Attempts


def test_a_code_is_a_hundred_bits_in_four_groups() -> None:
    made = {codes.new() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{5}(-[0-9A-HJKMNP-TV-Z]{5}){3}", c) for c in made)
    assert {letter for code in made for letter in code} == {*codes.ALPHABET, "-"}


@given(st.lists(st.booleans(), min_size=20, max_size=20), st.sampled_from(["", "-", " "]))
def test_however_it_is_typed_it_is_the_same(lower: list[bool], between: str) -> None:
    code = "0O1IL-7HK2M-0QZ4T-XVB19".replace("O", "0").replace("I", "1").replace("L", "1")
    letters = code.replace("-", "")
    typed = between.join(c.lower() if low else c for c, low in zip(letters, lower, strict=True))
    assert codes.digest(typed) == codes.digest(code)
    assert codes.digest(typed.replace("0", "o").replace("1", "l")) == codes.digest(code)
    other = ("Z" if letters[0] != "Z" else "Y") + letters[1:]
    assert codes.digest(other) != codes.digest(code)


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["10.0.0.1", "10.0.0.2"]))))
def test_no_address_tries_more_than_its_share(tries: list[tuple[float, str]]) -> None:
    attempts, now_s = Attempts(), 0.0
    passed: dict[str, list[float]] = {}
    for pause_s, address in tries:
        now_s += pause_s
        wait_s = attempts.wait_s(address, now_s)
        if wait_s == 0:
            attempts.failed(address, now_s)
            passed.setdefault(address, []).append(now_s)
        else:
            assert attempts.wait_s(address, now_s + wait_s) < 1e-9, "then it may"
    for times in passed.values():
        for begin, first in enumerate(times):
            for end in range(begin, len(times)):
                allowed = Attempts.BURST + (times[end] - first) / Attempts.EVERY_S
                assert end - begin + 1 <= allowed + 1e-6


def test_an_ipv6_host_is_one_address_and_memory_is_bounded() -> None:
    attempts = Attempts()
    for n in range(Attempts.BURST):
        attempts.failed(f"2001:db8::{n:x}", 0.0)
    assert attempts.wait_s("2001:db8::ffff", 0.0) > 0
    assert attempts.wait_s("2001:db8:0:1::1", 0.0) == 0
    for n in range(Attempts.ADDRESSES + 10):
        attempts.failed(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
    assert len(attempts._full_s) == Attempts.ADDRESSES
