"""Trends: only of fields asked for, for 15 minutes, and never too many."""

from __future__ import annotations

from services.metrics.trends import MAX_FIELDS, WINDOW_S, Trends


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


KEY = ("prensa-01", "db500", "m01")


def test_nothing_is_kept_until_asked() -> None:
    trends = Trends(Clock())
    assert not trends.wants(KEY)
    assert trends.get((*KEY, "corrente")) == ([], [])
    assert trends.wants(KEY)
    trends.add_point(KEY, 1_000, {"corrente": 1.5, "outro": 2})
    trends.add_point(KEY, 1_200, {"corrente": 9.9})  # too soon after the last
    trends.add_point(KEY, 2_000, {"corrente": True})
    trends.add_point(KEY, 3_000, {"corrente": "texto"})
    trends.add_point(KEY, 4_000, {})
    assert trends.get((*KEY, "corrente")) == ([1_000, 2_000], [1.5, 1.0])


def test_the_window_moves() -> None:
    trends = Trends(Clock())
    trends.get((*KEY, "x"))
    for second in range(WINDOW_S * 3):
        trends.add_point(KEY, second * 1_000, {"x": second})
    ts_ms, values = trends.get((*KEY, "x"))
    assert values[-1] == WINDOW_S * 3 - 1
    assert WINDOW_S <= len(values) <= WINDOW_S + 64
    assert ts_ms == [int(v) * 1_000 for v in values]


def test_the_longest_unasked_goes_first_and_pinned_ones_stay() -> None:
    clock = Clock()
    trends = Trends(clock)
    trends.pin([("p", "g", "", "pinned")])
    for n in range(MAX_FIELDS + 5):
        clock.now_s += 1
        trends.get(("p", "g", "", f"f{n}"))
    names = trends._fields_of[("p", "g", "")]
    assert len(names) == MAX_FIELDS
    assert "pinned" in names
    assert f"f{MAX_FIELDS + 4}" in names
    assert "f0" not in names


def test_forgotten_after_the_window() -> None:
    clock = Clock()
    trends = Trends(clock)
    trends.get(("p", "g", "", "old"))
    clock.now_s += WINDOW_S + 1
    trends.get(("p", "h", "", "new"))
    assert not trends.wants(("p", "g", ""))
    assert trends.wants(("p", "h", ""))


def test_unpinned_by_a_new_configuration() -> None:
    clock = Clock()
    trends = Trends(clock)
    trends.pin([("p", "g", "", "a")])
    trends.pin([])
    clock.now_s += WINDOW_S + 1
    trends.get(("p", "g", "", "b"))
    assert trends._fields_of == {("p", "g", ""): {"b"}}
