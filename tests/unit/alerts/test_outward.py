"""Which addresses tenants' receivers may have, and that nothing of theirs reaches another."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.runtime.addresses import is_public
from tests.kit.common import ROOT

TRY = """
import socket, threading
from services.alerts.outward import only_outward
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
only_outward()
socket.create_connection(("127.0.0.1", port)).close()
def attempt():
    try:
        socket.create_connection(("localhost", port))
    except OSError as e:
        print(type(e).__name__)
thread = threading.Thread(target=attempt, name="background")
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "224.0.0.1", "ff02::1",
     # What carries an IPv4 address, and networks of which Python's tables know nothing.
     "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1", "::", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1",
     "64:ff9b:1::a00:1", "64:ff9b:1:ffff::808:808", "2002:7f00:1::1", "2002:a00:1::1", "fec0::1",
     "192.0.0.192", "192.0.0.9", "::ffff:192.0.0.192", "2001::1", "::ffff:224.0.0.1"],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_only_the_background_is_held_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("PermissionError", "")
