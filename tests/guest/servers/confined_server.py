# SPDX-License-Identifier: GPL-2.0
"""A server that accepts connections under one AppArmor profile and reads under another.
It answers with the name of the error that the read returns.

Arguments: the second profile, the ports of an IPv4, an IPv6-only and a dual-stack
socket.
"""

import errno
import os
import select
import socket
import sys


def read(connection):
    try:
        return os.read(connection.fileno(), 1).hex()
    except OSError as error:
        return errno.errorcode[error.errno]


def serve(connection, profile):
    with open("/proc/self/attr/current", "w") as attribute:
        attribute.write(f"changeprofile {profile}")
    os.write(connection.fileno(), read(connection).encode())


def main(profile, v4, v6_only, dual_stack):
    listeners = [
        socket.create_server(("", int(v4))),
        socket.create_server(("::", int(v6_only)), family=socket.AF_INET6),
        socket.create_server(
            ("::", int(dual_stack)), family=socket.AF_INET6, dualstack_ipv6=True
        ),
    ]
    while True:
        for listener in select.select(listeners, [], [])[0]:
            connection, _ = listener.accept()
            child = os.fork()
            if child == 0:
                serve(connection, profile)
                os._exit(0)
            connection.close()
            os.waitpid(child, 0)


main(*sys.argv[1:])
