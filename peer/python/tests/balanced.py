# SPDX-License-Identifier: MIT OR Apache-2.0
"""Applications as behind a NAT64 balancer, for servers in this process and in others."""

from __future__ import annotations

import unittest.mock
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import toa_peer
import toa_peer.asgi
import toa_peer.wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CLIENT = toa_peer.Address("2001:db8:7::7", 42275)
BALANCER = toa_peer.Address("10.0.1.6", 1025)
PEER = toa_peer.Peer(CLIENT, BALANCER, toa_peer.Origin.TOA)


def ask(sock: Any, option: int) -> toa_peer.Address:
    """Answers as the module does, but only for sockets that are connected."""
    sock.getpeername()
    return CLIENT if option == 4096 else BALANCER


def bare_wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the addresses in the environ. Its REMOTE_PORT is empty with wsgiref."""
    text = "{} {} {}".format(
        environ["REMOTE_ADDR"], environ.get("REMOTE_PORT"), environ.get("toa_peer.peer")
    )
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the addresses in the scope."""
    assert scope["type"] in ("http", "websocket")
    text = "{} {} {}".format(*scope["client"], scope.get("toa_peer.peer"))
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


wsgi = toa_peer.wsgi.PeerMiddleware(bare_wsgi)
asgi = toa_peer.asgi.PeerMiddleware(bare_asgi)


def wsgi_in_gunicorn(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application for a process in which no test replaces the module's answers."""
    with unittest.mock.patch.object(toa_peer, "_ask", ask):
        return wsgi(environ, start_response)
