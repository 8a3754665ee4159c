"""What is given as a file and is none, and files that would never end: told at once, with the fix.

Each went wrong before: a traceback, a crash of the interpreter, or a wait without end.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from services.runtime import loader, yaml_lines
from services.runtime.errors import ConfigError, Problem

HEAD = "site: s1\nlocatario: acme\nplcs:\n  - id: p1\n    host: h\n    groups:\n"
GROUP = "      - {name: g1, fields: [{name: x, address: M0.0}]}\n"
# Generous: a busy machine; what is refused by a bound takes some ms.
LIMIT_S = 8.0


def problems(path: Path) -> list[Problem]:
    began_s = time.process_time()
    try:
        loader.load(path, {})
    except ConfigError as e:
        return e.problems
    finally:
        assert time.process_time() - began_s < LIMIT_S
    return []


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.relpath(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    with path.open("wb") as f:
        f.truncate(2**40)


def itself(path: Path) -> None:
    path.symlink_to(path)


NO_FILES: list[tuple[Callable[[Path], None], str]] = [
    (directory, "is a directory, not a file"),
    (pipe, "is a pipe, not a file"),
    (listening, "is a socket, not a file"),
    (device, "is a device, not a file"),
    (endless, "is larger than"),
    (itself, "cannot be opened"),
    (lambda _: None, "does not exist"),
]
each_kind = pytest.mark.parametrize(
    ("make", "words"), NO_FILES, ids=lambda v: getattr(v, "__name__", None)
)


def test_a_usual_place_that_may_not_be_looked_at_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /etc/plc-edge for whoever is not of its group."""
    here = tmp_path / "config.yaml"
    here.write_text("")
    monkeypatch.setattr(loader, "DEFAULT_FILES", (tmp_path / ("x" * 300) / "c.yaml", here))
    assert loader.find(None, {}) == here


@each_kind
def test_as_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "c.yaml")
    (problem,) = problems(tmp_path / "c.yaml")
    assert words in problem.message


@each_kind
def test_as_everything_that_a_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "f")
    config = (
        HEAD
        + "      - {name: g1, db: 1, layout: f}\n"
        + (
            "outputs:\n  - {name: o1, type: mqtt, host: b, username: u, password_file: f,"
            " tls: {ca: f, cert: f, key: f}}\n"
            "  - {name: o2, type: http, url: 'http://x', token_file: f}\n"
            "metrics: {username: u, password_file: f, tls: {cert: f, key: f}}\n"
        )
    )
    (tmp_path / "c.yaml").write_text(config)
    found = {p.key: p for p in problems(tmp_path / "c.yaml")}
    assert set(found) == {
        "plcs[0].groups[0].layout", "outputs[0].password_file", "outputs[0].tls.ca",
        "outputs[0].tls.cert", "outputs[0].tls.key", "outputs[1].token_file",
        "metrics.password_file", "metrics.tls.cert", "metrics.tls.key",
    }  # fmt: skip
    for problem in found.values():
        assert words in problem.message
        assert problem.line
        assert problem.hint


# text -> (line, what is said)
BROKEN: dict[str, tuple[bytes, int, str]] = {
    "open list": (b"site: [", 1, "the `[` of line 1 is open"),
    "open list, further down": (b"a: 1\nb: {c: 2,\n  d: [3, 4\n", 3, "the `[` of line 3 is open"),
    "open text": (b'a: 1\nb: "x\nc: 3\n', 3, "text that begins on line 2 is open"),
    "closed otherwise": (b"a: [1, 2}\n", 1, "the `[` of line 1 is open"),
    "open list, deep": (b"[" * 1_000_000, 1, "nested more than 50 deep"),
    "lists in lists": (b"- " * 1_000_000, 1, "nested more than 50 deep"),
    "keys in keys": (b"? " * 1_000_000, 1, "nested more than 50 deep"),
    "deep and closed": (b"[" * 10_000 + b"]" * 10_000, 1, "nested more than 50 deep"),
    "itself": (b"a: &a [*a]\n", 1, "&a holds itself"),
    "itself, merged": (b"a: &a {<<: *a}\n", 1, "&a holds itself"),
    "nobody": (b"a: 1\nb: *c\n", 2, "no value is named &c"),
    "NUL": (b"a: 1\nb: \0\n", 2, "U+0000"),
    "NUL, escaped": (b'a: 1\nb: "\\0"\n', 2, "NUL"),
    "surrogate": (b'a: 1\nb: "\\ud800"\n', 2, "Unicode"),
    "UTF-16": ("a: 1\n".encode("utf-16"), 1, "UTF-8"),
    "UTF-16 without its mark": ("a: 1\n".encode("utf-16-le"), 1, "U+0000"),
    "two documents": (b"a: 1\n---\nb: 2\n", 2, "second document"),
    "tag": (b"a: 1\nb: !!python/object:os.system x\n", 2, "no meaning here"),
    "binary": (b"a: 1\nb: !!binary aGk=\n", 2, "!!binary has no meaning"),
    "list as key": (b"a: 1\n[b]: 2\n", 2, "a key is one word"),
    "digits": (b"a: 1\nb: " + b"9" * 5_000, 2, "a number of 5000 digits"),
    "no number": (b"a: 1\nb: !!int x\n", 2, "is no int"),
    "twice": (b"a: 1\nb: 2\na: 3\n", 3, "stands twice"),
    "merge of nothing": (b"a: 1\nb: {<<: 5}\n", 2, "names no mapping"),
    "merge of nobody": (b"a: 1\nb: {<<: *c}\n", 2, "no value is named &c"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_yaml_names_its_line(tmp_path: Path, case: str) -> None:
    text, line, words = BROKEN[case]
    file = tmp_path / "c.yaml"
    file.write_bytes(text)
    found = [p for p in problems(file) if words in p.message]
    assert [p.line for p in found] == [line], problems(file)


def bomb(first: str, then: str) -> str:
    names = "abcdefghi"
    lines = [f"a: &a {first}"]
    lines += [f"{b}: &{b} {then.format(', '.join([f'*{a}'] * 9))}" for a, b in pairwise(names)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [bomb("[x, x, x]", "[{}]"), bomb("{k: x}", "{{<<: [{}]}}"), bomb("{k: x}", "{{a: [{}]}}")],
)
def test_a_billion_laughs_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    (problem,) = [p for p in problems(tmp_path / "c.yaml") if "values" in p.message]
    assert f"more than {yaml_lines.MAX_VALUES:,} values" in problem.message


def test_aliases_and_merges_hold(tmp_path: Path) -> None:
    data = yaml_lines.parse(
        "a: &a {x: 1, y: {z: 2}}\nb: {<<: *a, y: 3}\nc: {x: 5, <<: [*a, {q: 7}]}\nd: *a\n", "f"
    )
    assert data.problems == []
    assert data.data["b"] == {"x": 1, "y": 3}
    assert data.data["c"] == {"x": 5, "y": {"z": 2}, "q": 7}
    assert data.data["d"] == data.data["a"]
    assert data.data["d"] is not data.data["a"]
    assert (data.lines["b", "x"], data.lines["b", "y"], data.lines["c", "q"]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (HEAD + GROUP + "".join(f"k{i}: 1\n" for i in range(30_000)), 500),
        (HEAD + GROUP + "mirrors:\n" + "".join(
            f"  - {{name: m{i}, source: {{plc: p1, group: q{i}}}, target: {{host: h, db: 2}}}}\n"
            for i in range(1_500)), 1_000),
        (HEAD + "".join(
            f"      - {{name: g{i}, db: 1, layout: l.yaml}}\n" for i in range(1_000)), 500),
    ],
    ids=["unknown keys", "mirrors of nobody", "a spoilt layout"],
)  # fmt: skip
def test_who_has_made_thousands_is_told_the_first(tmp_path: Path, config: str, count: int) -> None:
    (tmp_path / "c.yaml").write_text(config)
    rows = "".join(f"  - {{name: f{i}, type: IMT}}\n" for i in range(700))
    (tmp_path / "l.yaml").write_text("fields:\n" + rows)
    assert len(problems(tmp_path / "c.yaml")) == count


def test_an_address_of_alive_is_judged(tmp_path: Path) -> None:
    config = HEAD.replace("    host: h\n", "    host: h\n    alive: {address: DB1.DBZ0}\n") + GROUP
    (tmp_path / "c.yaml").write_text(config)
    assert [(p.key, p.line) for p in problems(tmp_path / "c.yaml")] == [
        ("plcs[0].alive.address", 6)
    ]


def test_what_is_wrong_in_an_output_of_no_type(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(HEAD + GROUP + "outputs:\n  - {name: null, type: amqp}\n")
    found = problems(tmp_path / "c.yaml")
    assert [p.key for p in found] == ["outputs[0]", "outputs[0].name"]


def test_a_group_with_a_tag_in_which_more_is_wrong(tmp_path: Path) -> None:
    """What a tag makes of it nobody knows: nothing else is said of it."""
    group = GROUP.replace("- {name", "- !!set {publish: often, name")
    (tmp_path / "c.yaml").write_text(HEAD + group + "metrics: {port: 0}\n")
    found = problems(tmp_path / "c.yaml")
    assert [p.key for p in found] == ["plcs[0].groups[0]", "metrics.port"]


def test_a_merge_of_nobody_is_one_mistake(tmp_path: Path) -> None:
    group = GROUP.replace("- {name", "- {<<: *nobody, publish: often, name")
    (tmp_path / "c.yaml").write_text(HEAD + group)
    assert [p.key for p in problems(tmp_path / "c.yaml")] == ["plcs[0].groups[0]"]


def test_raw_of_a_block_in_which_nothing_lies(tmp_path: Path) -> None:
    group = "      - {name: g1, db: 5, raw: true, fields: [{name: x, address: M0.0}]}\n"
    (tmp_path / "c.yaml").write_text(HEAD + group)
    assert [p.key for p in problems(tmp_path / "c.yaml")] == ["plcs[0].groups[0].raw"]


@pytest.mark.parametrize("value", [".inf", ".nan", "-.inf"])
def test_no_number_is_infinite(tmp_path: Path, value: str) -> None:
    mirror = (
        "mirrors:\n  - {name: m1, source: {plc: p1, group: g1}, target: {host: h2, db: 2},"
        f" max_writes_per_s: {value}}}\n"
    )
    (tmp_path / "c.yaml").write_text(HEAD + GROUP + mirror)
    assert "mirrors[0].max_writes_per_s" in [p.key for p in problems(tmp_path / "c.yaml")]


@pytest.mark.parametrize("size", ["9" * 400 + "GiB", "1" * 20 + "B"])
def test_a_size_of_hundreds_of_digits(tmp_path: Path, size: str) -> None:
    (tmp_path / "c.yaml").write_text(HEAD + GROUP + f"store: {{max_size: {size}}}\n")
    assert [p.key for p in problems(tmp_path / "c.yaml")] == ["store.max_size"]
