"""The diff that leaves the box."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from services.fleet import drift
from services.fleet.files import Texts

SECRET = "s3gr3d0"
HOLDERS = [
    "password: {}",
    'password: "{}"',
    "password: '{}'",
    "  password:   {}  # hint",
    "{{username: a, password: {}, host: b}}",
    '{{"password": "{}"}}',
    "- password: {}",
    "token: {}",
    "password: a, b}} {}",
    "{{password: 'a, b}} {}', host: x}}",
    "secret: {}",
    "headers: {{Authorization: Bearer {}}}",
    "X-Api-Key: {}",
    "password: |\n  {}\n",
    "password:\n  {}\n",
    'password: "abc\n  {}"',
    "tokens:\n- {}",
    "passphrase: >-\n  one\n  {}",
    "url: https://user:{}@host/x",
    "url: mqtt://{}@host",
    "# password: {}",
    "other: &pw {}\npassword: *pw",
    "- {{name: x, password: !!str {}}}",
]


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_secret_in_clear_leaves_the_box(holder: str) -> None:
    text = "a: 1\n" + holder.format(SECRET) + "\nb: 2\n"
    shown = drift.redact(text)
    assert SECRET not in shown
    assert "a: 1" in shown
    assert "b: 2" in shown


@pytest.mark.parametrize(
    "line",
    [
        "password_file: /etc/plc-edge/mqtt.pw",
        "password: ${MQTT_PASSWORD}",
        'password: "${MQTT_PASSWORD}"',
        "token_file: t.txt",
        "host: broker",
        "- {name: a, password: '${A}', host: b}",
    ],
)
def test_references_stay_readable(line: str) -> None:
    assert drift.redact(line) == line


@given(st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=6), st.booleans())
@example("abcdef, ghijkl} mnopqr", False)
@example("abcdef, ghijkl} mnopqr", True)
@example("abcdef\nghijkl", False)
def test_however_yaml_writes_a_password_it_is_hidden(secret: str, flow: bool) -> None:
    text = yaml.safe_dump(
        {"outputs": [{"name": "c", "password": secret, "host": "broker"}], "z": 1},
        default_flow_style=flow, allow_unicode=True,
    )  # fmt: skip
    shown = drift.redact(text)
    for part in secret.split():
        if len(part) > 5 and part.isalnum() and part not in "outputs broker password":
            assert part not in shown


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_diff_of_anything_is_bounded_text(old: str, new: str) -> None:
    text = drift.diff(Texts(old, {}), Texts(new, {}), "config.yaml", "version 1")
    assert len(text.encode()) <= drift.MAX_BYTES
    if old.splitlines() != new.splitlines():
        assert text


def test_a_long_diff_is_cut_and_says_so() -> None:
    new = "\n".join(f"line {n} á" for n in range(20_000))
    text = drift.diff(Texts("", {}), Texts(new, {"l.yaml": "x"}), "config.yaml", "version 1")
    assert len(text.encode()) <= drift.MAX_BYTES
    assert text.endswith("left out)")


def test_a_change_of_a_secret_alone_is_told() -> None:
    text = drift.diff(Texts("password: a\n", {}), Texts("password: b\n", {}), "config.yaml", "v")
    assert "differs in a secret" in text


@pytest.mark.timeout(20)
def test_what_is_huge_is_told_in_time() -> None:
    # What difflib is slowest with: the same lines again and again.
    old, new = ("".join(f"#{n * s % 110}\n" for n in range(100_000)) for s in (7, 13))
    text = drift.diff(Texts(old, {}), Texts(new, {}), "config.yaml", "v")
    assert "--- config.yaml (v)" in text
    assert drift.redact("a" * 1_000_000) == "a" * 1_000_000
    assert drift.redact("password: " + "x" * 1_000_000) == "password: ***"
    text = drift.diff(Texts("a\n" * 400_000, {}), Texts("b\n" * 400_000, {}), "config.yaml", "v")
    assert "config.yaml" in text
