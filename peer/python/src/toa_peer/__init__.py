# SPDX-License-Identifier: MIT OR Apache-2.0
"""Finds the client of a TCP socket behind a FullNAT load balancer, and the balancer
between them.

The balancer puts the client's address into a TCP option, which the Linux kernel module
toa reads. `peer` asks the module, and `getpeername` if the module is not loaded or has no
client. A server that listens on an IPv4 address behind a NAT64 balancer has no other way
to find its IPv6 clients.

    import toa_peer

    sock, _ = listening.accept()
    peer = toa_peer.peer(sock)
    print(f"client {peer.client} by {peer.origin}")

The functions take a `socket.socket`, the socket of an asyncio transport
(`get_extra_info("socket")`), or any object with `fileno()`. `listener` makes a socket whose
`accept` returns the client. `toa_peer.wsgi` and `toa_peer.asgi` have middleware.

Trust the client's address only if the balancer alone can reach the server's port. Any other
host that reaches the port can claim any address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, cast

__all__ = [
    "Address",
    "HasFileno",
    "Listener",
    "Origin",
    "Peer",
    "balancer",
    "client_by_toa",
    "listener",
    "peer",
]

# getsockopt options of the module, at level IPPROTO_IP, also for AF_INET6 sockets. The first
# is DPVS's TOA_SO_GET_LOOKUP, and only toa has the second.
_CLIENT = 4096
_BALANCER = 4097

# DPVS's struct toa_nat64_peer: an IPv6 address (IPv4 in mapped form), a port in network
# order, padding.
_ANSWER = struct.Struct("!16sH2x")

# The errors that mean that the module has no answer:
# - ENOPROTOOPT: no module is loaded, or the socket is not TCP;
# - EINVAL: the module has no client;
# - EOPNOTSUPP: a true MPTCP connection, or a UNIX socket;
# - EFAULT: DPVS's module, whose option answers only for clients that getpeername cannot
#   return. The buffer is valid, so the error has no other cause.
_NO_ANSWER = {errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT}


class HasFileno(Protocol):
    """An object with a descriptor."""

    def fileno(self) -> int:
        """Returns the descriptor."""


class Address(NamedTuple):
    """An IP address and a port.

    The host is never IPv4-mapped: `::ffff:203.0.113.7` becomes `203.0.113.7`. So a client
    looks the same through every kind of listener. The host of a link-local address has its
    scope: `fe80::1%3`.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Returns `203.0.113.7:4660`, or `[2001:db8::7]:4660`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Origin(enum.Enum):
    """The source of a client's address."""

    TOA = "toa"
    """The balancer's TCP option, which the module has read."""

    GETPEERNAME = "getpeername"
    """`getpeername`. Without the module, the client is the balancer if the connection came
    through one."""

    def __str__(self) -> str:
        """Returns `toa` or `getpeername`."""
        return self.value


@dataclasses.dataclass(frozen=True)
class Peer:
    """The client of a connection, and the balancer that the connection came through."""

    client: Address
    """The client, as `origin` reports it."""

    balancer: Address | None
    """The balancer: the address and port that the connection's packets come from. None if
    the module has no client."""

    origin: Origin
    """The source of `client`."""

    def __str__(self) -> str:
        """Returns the peer for a log: `[2001:db8:7::7]:42275 by toa, balancer
        10.0.1.6:1025`, or `10.0.1.6:1025 by getpeername`."""
        between = f", balancer {self.balancer}" if self.balancer else ""
        return f"{self.client} by {self.origin}{between}"


def peer(sock: HasFileno) -> Peer:
    """Returns the client of this socket, and the balancer that the connection came through.

    The function asks the module first, and `getpeername` if the module is not loaded or has
    no client. It keeps nothing between calls.

    Raises OSError, whose `errno` is

    - ENOTCONN: the socket was never connected, or the connection has ended in both
      directions, or was reset. Clients that disconnect early cause this error at any time;
    - EAFNOSUPPORT: the socket's family is neither AF_INET nor AF_INET6;
    - EBADF, ENOTSOCK: the descriptor is closed, or is not a socket.
    """
    with _socket(sock) as opened:
        client = _ask(opened, _CLIENT)
        if client is None:
            return Peer(_name(opened), None, Origin.GETPEERNAME)
        try:
            between = _ask(opened, _BALANCER)
        except OSError as error:
            # The connection may have ended between the two calls. The client is still valid.
            if error.errno != errno.ENOTCONN:
                raise
            between = None
        return Peer(client, between, Origin.TOA)


def client_by_toa(sock: HasFileno) -> Address | None:
    """Returns the client that the module has for this socket.

    None if the connection came without the option, the module is not loaded, or the socket
    is not TCP.

    Raises OSError with ENOTCONN if the module is loaded and the socket is not connected, and
    with EBADF or ENOTSOCK as `peer` does.
    """
    with _socket(sock) as opened:
        return _ask(opened, _CLIENT)


def balancer(sock: HasFileno) -> Address | None:
    """Returns the balancer of this socket: the address that `getpeername` would return
    without the module.

    None in the cases of `client_by_toa`, and with other modules for TOA, which have no option
    for the balancer. The errors are those of `client_by_toa`.
    """
    with _socket(sock) as opened:
        return _ask(opened, _BALANCER)


class Listener(socket.socket):
    """A listening socket whose `accept` returns the client.

    Connections that have ended before `accept` could find their client are closed, and
    `accept` takes the next one. The kernel's `accept` does the same.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        """Returns a connection and its client, in the form of the client's family:
        `(host, port)` for IPv4, `(host, port, 0, scope)` for IPv6."""
        while True:
            sock, name = super().accept()
            try:
                return sock, _sockaddr(peer(sock).client)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    return sock, name
                sock.close()
                if error.errno != errno.ENOTCONN:
                    raise
            except BaseException:
                sock.close()
                raise


def listener(sock: socket.socket) -> Listener:
    """Returns a `Listener` in place of a listening socket, which has no descriptor after that.

    Pass it to servers that take a listening socket and use the address that `accept` returns:
    `asyncio.start_server(sock=…)`, `waitress.serve(sockets=[…])`, and the `socket` attribute of
    the servers of `socketserver`, `http.server` and `wsgiref`.
    """
    timeout = sock.gettimeout()
    replaced = Listener(sock.family, sock.type, sock.proto, fileno=sock.detach())
    replaced.settimeout(timeout)
    return replaced


class _Socket(Protocol):
    """The part of `socket.socket` that asyncio's transport sockets have as well."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getpeername(self) -> Any: ...


@contextlib.contextmanager
def _socket(sock: HasFileno) -> Iterator[_Socket]:
    """Returns the socket, or one for the time of a call with the same descriptor."""
    if hasattr(sock, "getsockopt") and hasattr(sock, "getpeername"):
        yield cast(_Socket, sock)
        return
    fd = sock.fileno()
    # socket.setdefaulttimeout makes Python's new sockets non-blocking, and this descriptor with
    # them.
    blocking = os.get_blocking(fd)
    opened = socket.socket(fileno=fd)
    try:
        if os.get_blocking(fd) != blocking:
            os.set_blocking(fd, blocking)
        yield opened
    finally:
        opened.detach()


def _ask(sock: _Socket, option: int) -> Address | None:
    """Asks the module. None if the module has no answer."""
    # The module exists on Linux only.
    if sys.platform != "linux":
        return None
    try:
        return _parse(sock.getsockopt(socket.IPPROTO_IP, option, _ANSWER.size))
    except OSError as error:
        if error.errno in _NO_ANSWER:
            return None
        raise


def _parse(answer: bytes) -> Address | None:
    """Parses an answer. None for other lengths, which no module for TOA returns."""
    if len(answer) != _ANSWER.size:
        return None
    address, port = _ANSWER.unpack(answer)
    return Address(_host(ipaddress.IPv6Address(address)), port)


def _name(sock: _Socket) -> Address:
    """Returns the result of `getpeername`."""
    name = sock.getpeername()
    if sock.family == socket.AF_INET:
        return Address(name[0], name[1])
    if sock.family == socket.AF_INET6:
        host, port, _, scope = name
        host = _host(ipaddress.IPv6Address(host.partition("%")[0]))
        return Address(f"{host}%{scope}" if scope else host, port)
    unix = getattr(socket, "AF_UNIX", None)
    kind = "a UNIX socket" if sock.family == unix else f"family {int(sock.family)}"
    raise OSError(errno.EAFNOSUPPORT, f"the peer of {kind} has no IP address")


def _host(address: ipaddress.IPv6Address) -> str:
    """Returns the text of an address, and that of the IPv4 address in an IPv4-mapped one."""
    return str(address.ipv4_mapped or address)


def _sockaddr(address: Address) -> tuple[Any, ...]:
    """Returns an address in the form that `accept` has for its family."""
    if ":" not in address.host:
        return tuple(address)
    host, _, scope = address.host.partition("%")
    return host, address.port, 0, int(scope or 0)
