# SPDX-License-Identifier: MIT OR Apache-2.0
"""The middleware in the servers for which it is."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import balanced
import toa_peer
import toa_peer.asgi
import toa_peer.wsgi

Connect = Callable[..., socket.socket]

EXPECTED = "2001:db8:7::7 42275 [2001:db8:7::7]:42275 by toa, balancer 10.0.1.6:1025"


def environ_after(app: Any, environ: dict[str, Any]) -> dict[str, Any]:
    """Calls a WSGI application, and returns the environ as it left it."""
    app(environ, lambda *_: lambda data: None)
    return environ


def test_wsgi_takes_the_socket_from_the_environ(
    listening: socket.socket, connect: Connect, nat64: None
) -> None:
    client = connect(listening)
    app = toa_peer.wsgi.PeerMiddleware(balanced.bare_wsgi, "socket")
    after = environ_after(app, {"socket": client, "REMOTE_ADDR": "10.0.1.6", "REMOTE_PORT": "1"})
    assert after.pop("socket") is client
    assert after == {
        "REMOTE_ADDR": "2001:db8:7::7",
        "REMOTE_PORT": "42275",
        "toa_peer.peer": balanced.PEER,
    }


def test_wsgi_without_a_socket_fails() -> None:
    with pytest.raises(LookupError, match="passes no gunicorn.socket: use toa_peer.listener"):
        environ_after(balanced.wsgi, {"REMOTE_ADDR": "10.0.1.6"})


def test_wsgi_over_a_unix_socket_stays_unchanged() -> None:
    one, other = socket.socketpair()
    with one, other:
        environ = {"gunicorn.socket": one, "REMOTE_ADDR": ""}
        assert environ_after(balanced.wsgi, dict(environ)) == environ


def test_wsgi_request_of_an_ended_connection_fails(listening: socket.socket) -> None:
    with pytest.raises(OSError) as caught:
        environ_after(balanced.wsgi, {"gunicorn.socket": listening, "REMOTE_ADDR": "10.0.1.6"})
    assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_sets_remote_addr(listening: socket.socket, worker: str) -> None:
    pytest.importorskip("gunicorn")
    here = Path(__file__).parent
    path = f"{here}:{here.parent / 'src'}"
    log = "--access-logfile=-", "--access-logformat=%(h)s"
    arguments = "-b", f"fd://{listening.fileno()}", "-k", worker, *log, "balanced:wsgi_in_gunicorn"
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        pass_fds=[listening.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert body(listening) == EXPECTED
            assert process.stdout is not None
            assert process.stdout.readline() == "2001:db8:7::7\n"
        finally:
            process.terminate()


def body(listening: socket.socket) -> str:
    """Returns the answer of a server on this socket."""
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


class Uvicorn:
    """A uvicorn in a thread."""

    def __init__(self, app: Any, sock: socket.socket, **options: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn")
        config = uvicorn.Config(app, lifespan="off", log_config=None, **options)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]})

    def __enter__(self) -> None:
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < deadline, "uvicorn is not up"
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_sets_the_client(
    listening: socket.socket, nat64: None, http: str, loop: str
) -> None:
    for module in (http, loop):
        pytest.importorskip(module)
    with Uvicorn(balanced.asgi, listening, http=http, loop=loop):
        assert body(listening) == EXPECTED


def websocket_protocols() -> list[str]:
    """Returns the names of the protocols for WebSockets that this uvicorn has."""
    try:
        from uvicorn import config
    except ImportError:
        return []
    protocols = ("websockets", "websockets-sansio", "wsproto")
    return [name for name in protocols if name in config.WS_PROTOCOLS]


@pytest.mark.parametrize("ws", websocket_protocols())
def test_uvicorn_sets_the_client_of_a_websocket(
    listening: socket.socket, nat64: None, ws: str
) -> None:
    pytest.importorskip(ws.partition("-")[0])
    client = pytest.importorskip("websockets.sync.client")
    with Uvicorn(balanced.asgi, listening, http="h11", ws=ws):
        port = listening.getsockname()[1]
        with client.connect(f"ws://127.0.0.1:{port}/") as connection:
            assert connection.recv(timeout=20) == EXPECTED


class Transport:
    """A transport of this socket."""

    def __init__(self, sock: Any, closing: bool = False) -> None:
        self.sock = sock
        self.closing = closing

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self.sock}.get(name)


class Cycle:
    """The object behind uvicorn's receive."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}


def scopes_of(receive: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the scopes of the calls that pass the middleware."""
    passed = []

    async def app(scope: Any, *_: Any) -> None:
        passed.append(dict(scope))

    async def send(_: Any) -> None:
        raise AssertionError("the middleware sends nothing")

    asyncio.run(toa_peer.asgi.PeerMiddleware(app)(scope, receive, send))
    return passed


def test_asgi_sets_the_client(listening: socket.socket, connect: Connect, nat64: None) -> None:
    receive = Cycle(Transport(connect(listening))).receive
    for kind in ("http", "websocket"):
        passed = scopes_of(receive, {"type": kind, "client": ("10.0.1.6", 1025)})
        expected = {"client": ("2001:db8:7::7", 42275), "toa_peer.peer": balanced.PEER}
        assert passed == [{"type": kind, **expected}]


def test_asgi_over_a_unix_socket_stays_unchanged() -> None:
    one, other = socket.socketpair()
    with one, other:
        scope = {"type": "http", "client": None}
        assert scopes_of(Cycle(Transport(one)).receive, scope) == [scope]


def test_asgi_drops_requests_of_ended_connections(
    listening: socket.socket, connect: Connect, nat64: None
) -> None:
    scope = {"type": "http", "client": ("10.0.1.6", 1025)}
    assert scopes_of(Cycle(Transport(listening)).receive, scope) == []
    # The descriptor of a closing transport may already be another connection.
    assert scopes_of(Cycle(Transport(connect(listening), closing=True)).receive, scope) == []


def test_asgi_without_a_transport_fails() -> None:
    async def receive() -> dict[str, Any]:
        return {}

    with pytest.raises(LookupError, match="receive has no transport: run uvicorn"):
        scopes_of(receive, {"type": "http", "client": ("10.0.1.6", 1025)})


def test_asgi_passes_the_lifespan() -> None:
    assert scopes_of(None, {"type": "lifespan"}) == [{"type": "lifespan"}]
