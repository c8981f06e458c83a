# SPDX-License-Identifier: MIT OR Apache-2.0
"""The listener, and servers that take one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import urllib.request
import wsgiref.simple_server
from collections.abc import Callable
from typing import Any

import pytest

import balanced
import toa_peer

Connect = Callable[..., socket.socket]


def test_accept_returns_the_client(listening: socket.socket, connect: Connect, nat64: None) -> None:
    with toa_peer.listener(listening) as replaced:
        assert listening.fileno() == -1
        client = connect(replaced)
        sock, name = replaced.accept()
        with sock:
            assert name == ("2001:db8:7::7", 42275, 0, 0)
            assert sock.getpeername() == client.getsockname()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (toa_peer.Address("203.0.113.7", 4660), ("203.0.113.7", 4660)),
        (toa_peer.Address("fe80::1%3", 4660), ("fe80::1", 4660, 0, 3)),
    ],
)
def test_names_have_the_form_of_their_family(
    listening: socket.socket,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    address: toa_peer.Address,
    expected: Any,
) -> None:
    monkeypatch.setattr(toa_peer, "_ask", lambda sock, option: address)
    with toa_peer.listener(listening) as replaced:
        connect(replaced)
        sock, name = replaced.accept()
        sock.close()
        assert name == expected


def test_accept_returns_the_peer_without_the_module(connect: Connect) -> None:
    dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with toa_peer.listener(dual) as replaced:
        client = connect(replaced)
        sock, name = replaced.accept()
        sock.close()
        assert name == client.getsockname()


class Failing:
    """A function that fails for the first socket, which it keeps, and then finds the peer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.first: socket.socket | None = None

    def __call__(self, sock: socket.socket) -> toa_peer.Peer:
        if self.first is None:
            self.first = sock
            raise OSError(self.number, "no peer")
        return balanced.PEER

    def is_closed(self) -> bool:
        return self.first is not None and self.first.fileno() == -1


def test_connection_that_has_ended_is_not_accepted(
    listening: socket.socket, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(errno.ENOTCONN)
    monkeypatch.setattr(toa_peer, "peer", failing)
    with toa_peer.listener(listening) as replaced:
        _, client = connect(replaced), connect(replaced)
        sock, _ = replaced.accept()
        with sock:
            assert sock.getpeername() == client.getsockname()
            assert failing.is_closed()


def test_other_errors_are_those_of_accept(
    listening: socket.socket, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(errno.EPERM)
    monkeypatch.setattr(toa_peer, "peer", failing)
    with toa_peer.listener(listening) as replaced:
        connect(replaced)
        with pytest.raises(PermissionError):
            replaced.accept()
        assert failing.is_closed()


def test_unix_connections_stay_unchanged(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        bound.listen()
        with toa_peer.listener(bound) as replaced, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            sock, name = replaced.accept()
            with sock:
                assert (sock.family, name) == (socket.AF_UNIX, "")


def test_timeout_is_kept(listening: socket.socket) -> None:
    listening.settimeout(0.01)
    with toa_peer.listener(listening) as replaced:
        assert replaced.gettimeout() == 0.01
        with pytest.raises(socket.timeout):
            replaced.accept()


def test_asyncio_has_the_client_as_peername(listening: socket.socket, nat64: None) -> None:
    async def run() -> Any:
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("peername"))
            writer.close()

        server = await asyncio.start_server(serve, sock=toa_peer.listener(listening))
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        name = await asyncio.wait_for(found, 10)
        writer.close()
        server.close()
        return name

    assert asyncio.run(run()) == ("2001:db8:7::7", 42275, 0, 0)


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """A handler without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def body(port: int) -> str:
    """Returns the answer of a server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        return str(response.read().decode())


def test_wsgiref_sets_remote_addr(nat64: None) -> None:
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, balanced.bare_wsgi, handler_class=Quiet
    )
    server.socket = toa_peer.listener(server.socket)
    with server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert body(server.server_port) == "2001:db8:7::7 None None"
        thread.join(10)


def test_waitress_sets_remote_addr(listening: socket.socket, nat64: None) -> None:
    waitress = pytest.importorskip("waitress")
    port = listening.getsockname()[1]
    server = waitress.create_server(
        balanced.bare_wsgi, sockets=[toa_peer.listener(listening)], threads=1
    )

    def run() -> None:
        # The loop ends with an error when its sockets are closed.
        with contextlib.suppress(OSError):
            server.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert body(port) == "2001:db8:7::7 42275 None"
    finally:
        server.close()
