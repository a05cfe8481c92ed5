#!/usr/bin/env python3
"""A web server in an asyncio loop, in overlap mode. It answers "<build> <pid>".

BUILD        which build it is.
WEB_INIT     it initialises until there is this file.
"""

import asyncio
import os
import signal
import sys

import handoff

BUILD = os.environ.get("BUILD", "dev")
INIT = os.environ.get("WEB_INIT")


async def serve(reader, writer):
    while True:
        async with reader.idle():  # a connection that waits here is given to the successor
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
        body = f"{BUILD} {os.getpid()}\n"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        if b"close" in head:
            return


async def main():
    h = handoff.Handoff(build_id=BUILD, mode="overlap")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, h.stop)

    @h.on_drain
    async def drain(event):
        assert event.after_commit
        await server.move(event, "client")

    @h.on_connections
    def take(event):
        for connection in h.connections():
            server.take(connection)

    await h.wait_for_begin_async()
    print("web: begun", file=sys.stderr, flush=True)
    while INIT and not os.path.exists(INIT):
        await asyncio.sleep(0.001)
    await h.announce_ready_async()
    server = handoff.StreamServer(h.listener("kv"), serve)
    await h.serve_async()
    server.close()
    await server.wait_closed()


asyncio.run(main())
