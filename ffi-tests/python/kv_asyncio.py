#!/usr/bin/env python3
"""The store in one asyncio loop. See kv_store.py; how a connection ends is in examples-c/kv.c."""

import asyncio
import signal

import handoff

import kv_store
from kv_store import FIRST_REQUEST_S, HANG_UP_S, LINE_BYTES_MAX, SEND_S


class Server:
    def __init__(self, h, store):
        self.h, self.store = h, store
        self.stopping = asyncio.Event()  # nobody comes after us
        self.syncing = None  # the future that ends when fdatasync has, for all that wait
        self.streams = None

    def accept(self, listener):
        self.streams = handoff.StreamServer(listener, self._serve, limit=LINE_BYTES_MAX)
        for connection in self.h.connections():
            self.streams.take(connection)

    async def stop(self):
        self.stopping.set()
        self.streams.close()
        await self.streams.wait_closed()

    # ---- one client

    async def _serve(self, reader, writer):
        try:
            if await self._converse(reader, writer):
                while await asyncio.wait_for(reader.read(LINE_BYTES_MAX), HANG_UP_S):
                    pass
        except (OSError, asyncio.TimeoutError):
            pass  # it has hung up, or does not

    async def _converse(self, reader, writer):
        """True: it was told to hang up."""
        asked = False
        while True:
            line = await self._request(reader, asked)
            if line is None:
                await self._say(writer, b"CLOSE")
                return True
            if not line.endswith(b"\n"):
                if line:
                    await self._say(writer, b"ERR the line is too long")
                return False
            reply, asked = await self._answer(line), True
            told = reply is None or self.stopping.is_set()
            await self._say(writer, b"CLOSE" if reply is None else reply + b" CLOSE" if told else reply)
            if told:
                return True

    async def _say(self, writer, line):
        writer.write(line + b"\n")
        await asyncio.wait_for(writer.drain(), SEND_S)

    async def _request(self, reader, asked):
        """None: we stop, and this client has nothing to ask. One that has just connected is about to."""
        async with reader.idle():  # a client that waits here is moved
            request = asyncio.ensure_future(self._line(reader))
            stop = asyncio.ensure_future(self.stopping.wait())
            try:
                await asyncio.wait({request, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not request.done():
                    # One turn of the loop at least: what has come is read then.
                    await asyncio.wait({request}, timeout=0.001 if asked else FIRST_REQUEST_S)
                return request.result() if request.done() else None
            finally:
                request.cancel()
                stop.cancel()

    async def _line(self, reader):
        """A line; without its end: there is no more, or it is too long."""
        try:
            return await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return b"too long"
        except asyncio.IncompleteReadError:
            return b""

    async def _answer(self, line):
        """None: not executed, since the data is not ours any more."""
        words = line.split()
        try:
            with self.h.writing():
                return await self._set(*words[1:]) if kv_store.is_set(words) else self.store.read(words)
        except handoff.Sealed:
            return None
        except OSError as error:
            return f"ERR not written: {error}".encode()

    async def _set(self, key, value):
        store = self.store
        with store.lock:
            revision = store.write(key, value)
        while store.durable < revision:
            if self.syncing is None or self.syncing.done():
                self.syncing = asyncio.get_running_loop().run_in_executor(None, self._sync)
            await asyncio.shield(self.syncing)
        store.put(key, value, revision)
        return b"OK %d" % revision

    def _sync(self):
        with self.store.lock:
            self.store.sync()


async def main(h, store, port):
    server = Server(h, store)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, h.stop)

    @h.on_drain
    async def drain(event):
        """Whoever knocks from here on waits in the backlog for the one that serves next."""
        event.put_state("lineage", store.lineage)
        await server.streams.move(event, "client")

    @h.on_seal
    def seal(event):
        store.close()
        return store.revision

    @h.on_resume
    def resume(event):
        store.open()
        server.streams.resume(kv_store.listener(h))

    h.on_confirmed(kv_store.confirmed)
    listener = kv_store.listener(h, port)
    store.warm()
    await h.wait_for_begin_async()
    await h.announce_ready_async(**kv_store.open_data(h, store))
    server.accept(listener)
    await h.serve_async()
    await server.stop()
    store.close()


asyncio.run(main(*kv_store.start()))
