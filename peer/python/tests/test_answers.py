# SPDX-License-Identifier: MIT OR Apache-2.0
"""Answers of the module and of getpeername, without a socket."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

import toa_peer
from toa_peer import Address, Origin, Peer

IPV6 = b"\x20\x01\x0d\xb8\0\x07\0\0\0\0\0\0\0\0\0\x07\x12\x34\0\0"
IPV4 = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\0\x71\x07\x12\x34\0\0"
CLIENT = Address("2001:db8:7::7", 4660)
BALANCER = Address("203.0.113.7", 4660)


class Fake:
    """A socket with these answers: bytes, a name, or the number of an error."""

    def __init__(
        self,
        client: bytes | int = errno.EINVAL,
        balancer: bytes | int = errno.EINVAL,
        name: Any = errno.ENOTCONN,
        family: int = socket.AF_INET,
    ) -> None:
        self.answers = {4096: client, 4097: balancer}
        self.name = name
        self.family = family
        self.asked: list[object] = []

    def fileno(self) -> int:
        raise AssertionError("the descriptor is not needed")

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        assert (level, length) == (0, 20)
        self.asked.append(option)
        answer = self.answers[option]
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer

    def getpeername(self) -> Any:
        self.asked.append("getpeername")
        if isinstance(self.name, int):
            raise OSError(self.name, os.strerror(self.name))
        return self.name


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (IPV6, CLIENT),
        (IPV4, BALANCER),
        # IPv4-compatible addresses stay IPv6.
        (b"\0" * 12 + b"\xcb\0\x71\x07\0\x01\0\0", Address("::cb00:7107", 1)),
        # Padding is ignored.
        (IPV6[:16] + b"\xff\xfe\xaa\x55", Address("2001:db8:7::7", 65534)),
        (IPV6[:19], None),
        (IPV6 + b"\0", None),
        (b"", None),
    ],
)
def test_answer_is_decoded(answer: bytes, expected: Address | None) -> None:
    assert toa_peer.client_by_toa(Fake(client=answer)) == expected
    assert toa_peer.balancer(Fake(balancer=answer)) == expected


NO_ANSWER = [errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT]


@pytest.mark.parametrize("number", NO_ANSWER)
def test_errors_that_mean_no_answer_are_no_errors(number: int) -> None:
    assert toa_peer.client_by_toa(Fake(client=number)) is None
    assert toa_peer.balancer(Fake(balancer=number)) is None


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EBADF, errno.ENOTSOCK, errno.ENOMEM])
def test_other_errors_are_passed_on(number: int) -> None:
    for ask, fake in [
        (toa_peer.peer, Fake(client=number)),
        (toa_peer.client_by_toa, Fake(client=number)),
        (toa_peer.balancer, Fake(balancer=number)),
    ]:
        with pytest.raises(OSError) as caught:
            ask(fake)
        assert caught.value.errno == number


def test_client_and_balancer_come_from_the_module() -> None:
    fake = Fake(client=IPV6, balancer=IPV4, name=("10.0.1.6", 1))
    assert toa_peer.peer(fake) == Peer(CLIENT, BALANCER, Origin.TOA)
    assert fake.asked == [4096, 4097]


@pytest.mark.parametrize("number", [*NO_ANSWER, errno.ENOTCONN])
def test_client_is_kept_without_a_balancer(number: int) -> None:
    """ENOTCONN means that the connection has ended between the two questions."""
    fake = Fake(client=IPV6, balancer=number)
    assert toa_peer.peer(fake) == Peer(CLIENT, None, Origin.TOA)


def test_other_errors_for_the_balancer_are_passed_on() -> None:
    with pytest.raises(OSError) as caught:
        toa_peer.peer(Fake(client=IPV6, balancer=errno.ENOMEM))
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        (socket.AF_INET, ("10.0.1.6", 1025), Address("10.0.1.6", 1025)),
        (socket.AF_INET6, ("2001:db8::6", 1025, 0, 0), Address("2001:db8::6", 1025)),
        (socket.AF_INET6, ("::ffff:10.0.1.6", 1025, 0, 0), Address("10.0.1.6", 1025)),
        (socket.AF_INET6, ("fe80::1", 1025, 7, 3), Address("fe80::1%3", 1025)),
        (socket.AF_INET6, ("fe80::1%eth0", 1025, 7, 3), Address("fe80::1%3", 1025)),
    ],
)
def test_getpeername_is_asked_second(family: int, name: Any, expected: Address) -> None:
    fake = Fake(name=name, family=family)
    assert toa_peer.peer(fake) == Peer(expected, None, Origin.GETPEERNAME)
    assert fake.asked == [4096, "getpeername"]


def test_other_families_are_refused_in_words() -> None:
    # The name of a vsock looks like that of an IPv4 socket.
    with pytest.raises(OSError) as caught:
        toa_peer.peer(Fake(errno.EOPNOTSUPP, name=(2, 1024), family=40))
    assert caught.value.errno == errno.EAFNOSUPPORT
    assert caught.value.strerror == "the peer of family 40 has no IP address"


def test_texts_for_logs() -> None:
    by_toa = Peer(Address("2001:db8:7::7", 42275), Address("10.0.1.6", 1025), Origin.TOA)
    assert str(by_toa) == "[2001:db8:7::7]:42275 by toa, balancer 10.0.1.6:1025"
    by_name = Peer(Address("10.0.1.6", 1025), None, Origin.GETPEERNAME)
    assert str(by_name) == "10.0.1.6:1025 by getpeername"
