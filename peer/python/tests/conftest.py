# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sockets of this machine for the tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

import balanced
import toa_peer


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listening socket on an IPv4 address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """A function that connects to a listening socket over an address of this machine."""
    opened = []

    def connect(listening: socket.socket, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.create_connection((host, listening.getsockname()[1]), timeout=10)
        opened.append(sock)
        return sock

    yield connect
    for sock in opened:
        sock.close()


@pytest.fixture
def nat64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all sockets of this process those behind a NAT64 balancer."""
    monkeypatch.setattr(toa_peer, "_ask", balanced.ask)
