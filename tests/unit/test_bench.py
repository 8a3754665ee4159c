"""Rounds become rows, ours and the baselines take turns, and every bench can be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as runner
from tests.bench.report import HEADER, document, line, number
from tests.bench.result import Options, Result, compare, percentiles, rows


def test_rows_are_medians_and_the_ratio_is_of_each_round() -> None:
    rounds = [({"ms": 2.0}, {"bare": {"ms": 1.0}}), ({"ms": 9.0}, {"bare": {"ms": 3.0}}),
              ({"ms": 4.0}, {"bare": {"ms": 4.0}})]  # fmt: skip
    assert rows("b", "c", rounds) == [Result("b", "c", "ms", 4.0, "bare", 3.0, 2.0, (1.0, 3.0), 3)]


def test_a_unit_that_no_baseline_has_stands_alone() -> None:
    rounds = [({"ms": 2.0, "MB": 7.0}, {"bare": {"ms": 1.0}})]
    assert rows("b", "c", rounds)[1] == Result("b", "c", "MB", 7.0, None, None, None, (7.0, 7.0), 1)


def test_a_baseline_of_zero_has_no_ratio_that_can_be_written() -> None:
    (row,) = rows("b", "c", [({"%": 0.1}, {"bare": {"%": 0.0}})])
    assert row.ratio is None
    json.loads(json.dumps(document({}, [row]), allow_nan=False))


def test_ours_and_the_baselines_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> dict[str, float]:
        order.append(name)
        return {"ms": 1.0}

    got = compare("b", "c", lambda: run("ours"), {"x": lambda: run("x"), "y": lambda: run("y")}, 2)
    assert order == ["y", "x", "ours", "ours", "x", "y"]
    assert [r.baseline_name for r in got] == ["x", "y"]


def test_a_line_has_the_cells_of_the_header() -> None:
    row = Result("b", "c", "µs", 1234.5, "bare", 0.1234, 10.0, (9.0, 11.0), 5)
    assert line(row) == "| b | c | µs | 1,234 | bare | 0.123 | 10 | 9 to 11 | 5 |"
    alone = Result("b", "c", "MB", 7.0, None, None, None, (7.0, 7.0), 1)
    assert line(alone).count("|") == HEADER.splitlines()[0].count("|")


def test_numbers_and_percentiles() -> None:
    assert [number(v) for v in (0.0, 0.00712, 99.96, 123456.7)] == [
        "0",
        "0.00712",
        "100",
        "123,457",
    ]
    assert percentiles([float(i) for i in range(101)]) == {"p50 ms": 50, "p90 ms": 90, "p99 ms": 99}


@pytest.mark.parametrize("name", runner.BENCHES)
def test_every_bench_is_there(name: str) -> None:
    module = runner.load(name)
    assert module.__doc__
    assert callable(module.bench)


def test_no_bench_is_forgotten() -> None:
    files = {p.stem for p in Path(runner.__file__).parent.glob("*.py")}
    helpers = {"__main__", "bare_paho", "bare_zeromq", "report", "result", "watch"}
    assert files == helpers | {name.replace("-", "_") for name in runner.BENCHES}


def test_the_document_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Options] = []

    def bench(options: Options) -> list[Result]:
        asked.append(options)
        return [Result("frames", "c", "ms", 1.0, None, None, None, (1.0, 1.0), 1)]

    monkeypatch.setattr("tests.bench.frames.bench", bench)
    monkeypatch.setattr("tests.bench.keep.bench", lambda _: 1 / 0)
    files = [str(tmp_path / "r.json"), str(tmp_path / "r.md")]
    words = [
        "--only",
        "frames",
        "keep",
        "--rounds",
        "2",
        "--json",
        files[0],
        "--markdown",
        files[1],
    ]
    monkeypatch.setattr("sys.argv", ["bench", *words])
    assert runner.main() == 1
    assert asked == [Options(rounds=2)]
    text = Path(files[1]).read_text()
    assert text == capsys.readouterr().out
    assert text.endswith("| frames | c | ms | 1 |  |  |  |  | 1 |\n")
    got = json.loads(Path(files[0]).read_text())
    assert got["machine"]["cores"] > 0
    assert [r["unit"] for r in got["results"]] == ["ms"]
    assert got["failed"] == ["keep"]
