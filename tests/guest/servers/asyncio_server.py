# SPDX-License-Identifier: GPL-2.0
"""An asyncio server that answers each HTTP request with its client's address and port.

Arguments: the ports of an IPv4, an IPv6-only and a dual-stack socket.
"""

import asyncio
import socket
import sys


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    address, port = writer.get_extra_info("peername")[:2]
    writer.write(f"HTTP/1.0 200 OK\r\n\r\n{address} {port}\n".encode())
    await writer.drain()
    writer.close()


async def main(v4, v6_only, dual_stack):
    sockets = [
        socket.create_server(("", v4)),
        socket.create_server(("::", v6_only), family=socket.AF_INET6),
        socket.create_server(
            ("::", dual_stack), family=socket.AF_INET6, dualstack_ipv6=True
        ),
    ]
    servers = [await asyncio.start_server(answer, sock=sock) for sock in sockets]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*map(int, sys.argv[1:])))
