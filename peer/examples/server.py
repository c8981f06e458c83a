# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints a line about each connection, and sends this line to the client.

    python3 server.py :: 8080
    nc localhost 8080

The server needs only the standard library.
"""

import errno
import ipaddress
import socket
import struct
import sys

# getsockopt options of toa, at level IPPROTO_IP, also for AF_INET6 sockets.
CLIENT = 4096
BALANCER = 4097

# An IPv6 address (IPv4 in mapped form), a port in network order, padding.
ANSWER = struct.Struct("!16sH2x")

# In this order: no module is loaded, or the socket is not TCP; the module has no
# client; MPTCP; DPVS's module for clients that getpeername returns.
NO_ANSWER = {errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT}


def unmapped(address):
    """Returns the IPv4 address in an IPv4-mapped one; others unchanged."""
    address = ipaddress.ip_address(address)
    return getattr(address, "ipv4_mapped", None) or address


def ask(sock, option):
    """Returns address and port, or None if the module has no answer."""
    try:
        answer = sock.getsockopt(socket.IPPROTO_IP, option, ANSWER.size)
    except OSError as error:
        if error.errno in NO_ANSWER:
            return None
        raise
    address, port = ANSWER.unpack(answer)
    return unmapped(address), port


def peer(sock):
    """Returns client, origin ("toa" or "getpeername"), and balancer or None."""
    client = ask(sock, CLIENT)
    if client:
        return client, "toa", ask(sock, BALANCER)
    address, port = sock.getpeername()[:2]
    return (unmapped(address), port), "getpeername", None


def line(client, origin, balancer):
    text = "client {} port {} by {}".format(*client, origin)
    if balancer:
        text += ", balancer {} port {}".format(*balancer)
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
                    text = line(*peer(sock))
                    print(text, flush=True)
                    sock.sendall(text.encode() + b"\n")
                except OSError as error:
                    # The client may already have disconnected: serve the next one.
                    print(f"server: {error}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: server.py ADDRESS PORT")
    main(*sys.argv[1:])
