# SPDX-License-Identifier: MIT OR Apache-2.0
"""The example servers, and their lines for a connection within this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"


def connected(port: int) -> socket.socket:
    """Connects to a server as soon as it listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the source distribution has no examples")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("server.py", "client 127.0.0.1 port {} by getpeername\n"),
        ("asyncio_server.py", "127.0.0.1:{} by getpeername\n"),
    ],
)
def test_example_prints_and_sends_the_peer(name: str, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), "127.0.0.1", str(port)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            with connected(port) as client:
                line = expected.format(client.getsockname()[1])
                assert client.makefile().read() == line
            assert server.stdout is not None
            assert server.stdout.readline() == line
        finally:
            server.terminate()
