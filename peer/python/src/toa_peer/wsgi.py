# SPDX-License-Identifier: MIT OR Apache-2.0
"""WSGI middleware that sets REMOTE_ADDR and REMOTE_PORT to the client.

    application = toa_peer.wsgi.PeerMiddleware(application)

The server has to pass the connection's socket to the application. gunicorn does, in
`environ["gunicorn.socket"]`. Servers that do not, such as waitress and wsgiref, take a
`toa_peer.listener` in place of the middleware.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

import toa_peer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["PeerMiddleware"]


class PeerMiddleware:
    """An application that sets REMOTE_ADDR and REMOTE_PORT, and then calls another one.

    `environ["toa_peer.peer"]` is the whole `toa_peer.Peer`, with the balancer. Requests over UNIX
    sockets stay unchanged.

    Raises LookupError if the server passes no socket, because REMOTE_ADDR would be the balancer.
    Raises the other errors of `toa_peer.peer`: gunicorn drops requests with ENOTCONN, whose
    connection has ended.
    """

    def __init__(self, app: WSGIApplication, key: str = "gunicorn.socket") -> None:
        """Takes the socket from this key of the environ."""
        self.app = app
        self.key = key

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sock = environ.get(self.key)
        if sock is None:
            raise LookupError(
                f"the server passes no {self.key}: use toa_peer.listener, or run gunicorn"
            )
        try:
            peer = toa_peer.peer(sock)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
        else:
            environ["REMOTE_ADDR"] = peer.client.host
            environ["REMOTE_PORT"] = str(peer.client.port)
            environ["toa_peer.peer"] = peer
        return self.app(environ, start_response)
