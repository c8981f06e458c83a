# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints a line about each connection, and sends this line to the client.

    python3 server.py :: 8080
    nc localhost 8080

The server needs the package toa-peer: `pip install ../python`.
"""

import socket
import sys

import toa_peer


def line(peer):
    text = f"client {peer.client.host} port {peer.client.port} by {peer.origin}"
    if peer.balancer:
        text += f", balancer {peer.balancer.host} port {peer.balancer.port}"
    return text


def listen(address, port):
    """Listens on an address, which is IPv6 if it has a colon; :: accepts IPv4 as well."""
    if ":" in address:
        both = address == "::"
        family = socket.AF_INET6
        return socket.create_server((address, port), family=family, dualstack_ipv6=both)
    return socket.create_server((address, port))


def main(address, port):
    with listen(address, int(port)) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                try:
                    text = line(toa_peer.peer(sock))
                    print(text, flush=True)
                    sock.sendall(text.encode() + b"\n")
                except OSError as error:
                    # The client may already have disconnected: serve the next one.
                    print(f"server: {error}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: server.py ADDRESS PORT")
    main(*sys.argv[1:])
