#!/usr/bin/env python3
"""A line server in one asyncio loop that can be replaced while it runs: it answers each line in upper case.

Its clients keep their connections.

handoff run --listen lines=127.0.0.1:7000 -- ./line_server.py      without a supervisor: ./line_server.py
"""

import asyncio
import contextlib
import os
import signal

import handoff

BUILD = os.environ.get("BUILD", "dev")
OWN_ADDRESS = ("127.0.0.1", 7000)  # without a supervisor
IDLE_S = 5  # so that no client holds up the end for longer


async def main():
    h = handoff.Handoff(build_id=BUILD)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, h.stop)
    stopping = False
    streams = None

    async def serve(reader, writer):
        """A connection that was accepted has at least one answer."""
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            while True:
                async with reader.idle():  # a connection that waits here moves to the successor
                    line = await asyncio.wait_for(reader.readline(), IDLE_S)
                if not line:
                    return
                writer.write(f"{BUILD} ".encode() + line.upper())
                await writer.drain()
                if stopping:
                    return

    @h.on_drain
    async def drain(event):
        """Whoever connects from here on waits in the backlog for the process that serves next."""
        await streams.move(event, "client")

    @h.on_seal
    def seal(event):
        pass  # there is no data

    @h.on_resume
    def resume(event):
        streams.resume(h.listener("lines"))

    listener = h.listener("lines", bind=OWN_ADDRESS)
    await h.wait_for_begin_async()
    await h.announce_ready_async()
    streams = handoff.StreamServer(listener, serve)
    for connection in h.connections():
        streams.take(connection)
    await h.serve_async()
    stopping = True
    streams.close()
    await streams.wait_closed()


asyncio.run(main())
