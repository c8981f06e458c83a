# SPDX-License-Identifier: MIT OR Apache-2.0
"""ASGI middleware that sets `scope["client"]` to the client.

    app = toa_peer.asgi.PeerMiddleware(app)

The middleware is for uvicorn, and has to be the outermost one. ASGI has no field for the
socket. uvicorn's `receive` is a method of an object with the connection's transport, from
which the middleware takes the socket.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import toa_peer

__all__ = ["PeerMiddleware"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class PeerMiddleware:
    """An application that sets `scope["client"]`, and then calls another one.

    `scope["toa_peer.peer"]` is the whole `toa_peer.Peer`, with the balancer. Requests over UNIX
    sockets stay unchanged. Requests whose connection has ended are dropped.

    Raises LookupError for a request without a transport, because `scope["client"]` would be the
    balancer.
    """

    def __init__(self, app: _App) -> None:
        self.app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                peer = _peer(receive)
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    return
                if error.errno != errno.EAFNOSUPPORT:
                    raise
            else:
                scope["client"] = tuple(peer.client)
                scope["toa_peer.peer"] = peer
        await self.app(scope, receive, send)


def _peer(receive: _Receive) -> toa_peer.Peer:
    transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise LookupError("receive has no transport: run uvicorn, with this middleware outermost")
    # uvloop's socket keeps the number of its descriptor, which another connection may have by now.
    if transport.is_closing():
        raise OSError(errno.ENOTCONN, "the connection has ended")
    return toa_peer.peer(transport.get_extra_info("socket"))
