# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes a line about each connection, and sends the same to the client.

    python3 server.py :: 8080
    nc localhost 8080

It needs nothing but the standard library.
"""

import errno
import ipaddress
import socket
import struct
import sys

# getsockopt options of toa, at the level IPPROTO_IP, also for AF_INET6 sockets.
CLIENT = 4096
BALANCER = 4097

# An IPv6 address (IPv4 in mapped form), a port in network order, padding.
ANSWER = struct.Struct("!16sH2x")

# No module is loaded, or the socket is none of TCP; no client is known; MPTCP;
# DPVS's module, for what getpeername tells.
NO_ANSWER = {errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT}


def unmapped(address):
    """The IPv4 address in an IPv4-mapped one; others as they are."""
    address = ipaddress.ip_address(address)
    return getattr(address, "ipv4_mapped", None) or address


def ask(sock, option):
    """Address and port, or None where the module does not tell them."""
    try:
        answer = sock.getsockopt(socket.IPPROTO_IP, option, ANSWER.size)
    except OSError as error:
        if error.errno in NO_ANSWER:
            return None
        raise
    address, port = ANSWER.unpack(answer)
    return unmapped(address), port


def peer(sock):
    """Client, origin ("toa" or "getpeername"), and balancer or None."""
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
    """An address with a colon is an IPv6 one, and :: listens for IPv4 as well."""
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
                    # A client may have gone again: the next one is served.
                    print(f"server: {error}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: server.py ADDRESS PORT")
    main(*sys.argv[1:])
