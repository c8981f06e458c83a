# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints the peer of each connection, and sends it to the client, with asyncio.

    python3 asyncio_server.py :: 8080
    nc localhost 8080

The server needs the package toa-peer: `pip install ../python`.
"""

import asyncio
import sys

import toa_peer


async def serve(reader, writer):
    try:
        peer = toa_peer.peer(writer.get_extra_info("socket"))
        print(peer, flush=True)
        writer.write(f"{peer}\n".encode())
        await writer.drain()
    except OSError as error:
        # The client may already have disconnected: serve the others.
        print(f"server: {error}", file=sys.stderr)
    finally:
        writer.close()


async def main(address, port):
    server = await asyncio.start_server(serve, address, int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: asyncio_server.py ADDRESS PORT")
    asyncio.run(main(*sys.argv[1:]))
