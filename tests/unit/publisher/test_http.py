"""What is read from HTTP answers."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from services.publisher.outputs.http import HttpOutput, _retry_after
from services.runtime.errors import Unavailable


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("3", 3.0), ("-1", 0.0), ("0.5", 0.5), ("soon", None)]
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = _retry_after(formatdate(time.time() + 20, usegmt=True))
    assert seconds is not None
    assert 17 < seconds <= 20


def _output(tmp_path: Path, token: str, url: str) -> HttpOutput:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    output = HttpOutput.__new__(HttpOutput)
    output._config = {"url": url, "format": "json", "headers": {}, "token": {"file": str(file)},
                      "gzip": False, "tls": {}, "timeout": 2.0}  # fmt: skip
    output._pool, output._where = None, "here"
    return output


@pytest.mark.parametrize("token", ["s3cr3t\nsecond line", "s3cr3t…"])
def test_a_token_that_is_no_header_is_held_and_not_quoted(tmp_path: Path, token: str) -> None:
    with pytest.raises(Unavailable) as caught:
        _output(tmp_path, token, "http://127.0.0.1:1/")._post([])
    assert caught.value.code == "auth"
    assert "s3cr3t" not in repr(caught.value)


def test_a_refused_connection_is_called_so(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound, and listening to none
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        with pytest.raises(Unavailable) as caught:
            _output(tmp_path, "t", url)._post([])
    assert caught.value.code == "refused"
