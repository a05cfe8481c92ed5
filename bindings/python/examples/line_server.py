#!/usr/bin/env python3
"""A line server in one asyncio loop that can be replaced while it runs: it answers each line in upper case.

handoff run --listen lines=127.0.0.1:7000 -- ./line_server.py      without a supervisor: ./line_server.py
"""

import asyncio
import contextlib
import os
import signal

import handoff

BUILD = os.environ.get("BUILD", "dev")
OWN_ADDRESS = ("127.0.0.1", 7000)  # without a supervisor
IDLE_S = 5  # so that no client holds up a drain for longer
MARGIN_S = 0.1  # before the end of the grace: a late answer is none


async def main():
    h = handoff.Handoff(build_id=BUILD)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, h.stop)
    draining = False
    streams = None

    async def serve(reader, writer):
        """A connection that was accepted has at least one answer."""
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                writer.write(f"{BUILD} ".encode() + line.upper())
                await writer.drain()
                if draining:
                    return

    def accept(listener):
        nonlocal draining, streams
        draining, streams = False, handoff.StreamServer(listener, serve)

    @h.on_drain
    async def drain(event):
        """Whoever connects from here on waits in the backlog for the process that serves next."""
        nonlocal draining
        draining = True
        streams.close()
        await streams.wait_closed(event.remaining - MARGIN_S)

    @h.on_seal
    def seal(event):
        pass  # there is no data

    @h.on_resume
    def resume(event):
        if draining:  # else the handoff was undone before the drain
            accept(h.listener("lines"))

    listener = h.listener("lines", bind=OWN_ADDRESS)
    await h.wait_for_begin_async()
    await h.announce_ready_async()
    accept(listener)
    await h.serve_async()
    draining = True
    streams.close()
    await streams.wait_closed()


asyncio.run(main())
