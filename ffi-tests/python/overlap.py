#!/usr/bin/env python3
"""A web server in an asyncio loop, in overlap mode. It answers "<build> <pid>", and hangs up.

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
    async with reader.idle():
        await reader.readuntil(b"\r\n\r\n")
    body = f"{BUILD} {os.getpid()}\n"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()


async def main():
    h = handoff.Handoff(build_id=BUILD, mode="overlap")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, h.stop)

    @h.on_drain
    async def drain(event):
        assert event.after_commit
        server.close()
        await server.wait_closed(event.remaining)

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
