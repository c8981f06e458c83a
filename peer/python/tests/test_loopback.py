# SPDX-License-Identifier: MIT OR Apache-2.0
"""Real sockets for which the module has no client: it is not loaded, or the connections are
within this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import types
from collections.abc import Callable

import pytest

import toa_peer
from toa_peer import Address, HasFileno, Origin, Peer

Connect = Callable[..., socket.socket]


class Descriptor:
    """An object that has only a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def is_by_getpeername(sock: HasFileno, client: Address) -> None:
    assert toa_peer.peer(sock) == Peer(client, None, Origin.GETPEERNAME)
    assert toa_peer.client_by_toa(sock) is None
    assert toa_peer.balancer(sock) is None


@pytest.mark.parametrize(
    ("family", "address", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET6, "::", "::1"),
    ],
)
def test_peer_of_each_family(connect: Connect, family: int, address: str, host: str) -> None:
    both = address == "::"
    with socket.create_server((address, 0), family=family, dualstack_ipv6=both) as listening:
        client = connect(listening, host)
        server, _ = listening.accept()
        with server:
            expected = Address(host, client.getsockname()[1])
            is_by_getpeername(server, expected)
            is_by_getpeername(Descriptor(server.fileno()), expected)


def test_peer_of_a_udp_socket() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        is_by_getpeername(two, Address(*one.getsockname()))


def test_descriptor_stays_open_and_blocking(listening: socket.socket, connect: Connect) -> None:
    connect(listening)
    server, _ = listening.accept()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(1)
    try:
        toa_peer.peer(Descriptor(server.fileno()))
        assert os.get_blocking(server.fileno())
    finally:
        socket.setdefaulttimeout(before)
    server.sendall(b"open")
    server.close()


def test_socket_that_is_not_connected_has_no_peer(listening: socket.socket) -> None:
    socks: list[HasFileno] = [listening, Descriptor(listening.fileno())]
    for sock in socks:
        with pytest.raises(OSError) as caught:
            toa_peer.peer(sock)
        assert caught.value.errno == errno.ENOTCONN


def test_connection_that_has_ended_has_no_peer(listening: socket.socket, connect: Connect) -> None:
    client = connect(listening)
    server, _ = listening.accept()
    with server:
        # This side ends first and waits; the other side's FIN then closes it at once.
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        with pytest.raises(OSError) as caught:
            toa_peer.peer(server)
        assert caught.value.errno == errno.ENOTCONN


def test_unix_socket_is_refused_in_words() -> None:
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(OSError) as caught:
            toa_peer.peer(one)
        assert caught.value.errno == errno.EAFNOSUPPORT
        assert caught.value.strerror == "the peer of a UNIX socket has no IP address"
        assert toa_peer.client_by_toa(one) is None
        assert toa_peer.balancer(one) is None


@pytest.mark.parametrize("ask", [toa_peer.peer, toa_peer.client_by_toa, toa_peer.balancer])
def test_descriptors_that_are_no_sockets(ask: Callable[[HasFileno], object]) -> None:
    with open("/dev/null") as file:
        with pytest.raises(OSError) as caught:
            ask(file)
        assert caught.value.errno == errno.ENOTSOCK
    closed = socket.socket()
    closed.close()
    socks: list[HasFileno] = [closed, Descriptor(-1)]
    for sock in socks:
        with pytest.raises(OSError) as caught:
            ask(sock)
        assert caught.value.errno == errno.EBADF


def loops() -> list[types.ModuleType]:
    """Returns asyncio, and uvloop where it is installed."""
    found: list[types.ModuleType] = [asyncio]
    try:
        import uvloop
    except ImportError:
        return found
    return [*found, uvloop]


@pytest.mark.parametrize("module", loops(), ids=lambda module: module.__name__)
def test_peer_of_an_asyncio_transport(module: types.ModuleType) -> None:
    async def run() -> tuple[Peer, Address]:
        found: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(toa_peer.peer(writer.get_extra_info("socket")))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Address(*writer.get_extra_info("sockname"))
        peer = await asyncio.wait_for(found, 10)
        writer.close()
        server.close()
        return peer, client

    loop = module.new_event_loop()
    try:
        peer, client = loop.run_until_complete(run())
    finally:
        loop.close()
    assert peer == Peer(client, None, Origin.GETPEERNAME)
