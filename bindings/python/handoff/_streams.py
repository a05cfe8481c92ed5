"""Connections in an asyncio loop, on a shared listener; and how they move to the successor."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Callable, Optional

from ._event import Event
from ._listener import FULL, OF_ONE_CLIENT, PAUSE_S, Listener
from ._payload import Connection

# The most that put_connection takes; a client that has sent more is served until less is left.
_STATE_BYTES_MAX = 60 * 1024
_LOOK_S = 0.001
# Before the end of the grace: a late answer is none.
_MARGIN_S = 0.05


class StreamReader(asyncio.StreamReader):
    """What ``StreamServer`` gives to ``serve``: that of asyncio, and ``idle``."""

    def __init__(self, client: _Client, *, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self._client = client

    def idle(self) -> AbstractAsyncContextManager[None]:
        """``async with reader.idle():`` is around the wait for a request: there, and only there, the connection may move.

        Nothing of the request may be out of the reader before the end of the block, so there is one call in it:
        ``readline``, ``readuntil`` or ``readexactly``, which leave everything in the reader until all has come, or
        ``read(n)``. A timeout belongs inside of the block.

        A connection that is moved stays in the block until the process ends or, after a rollback, goes on.
        """
        return self._client


# The two things that a StreamReader knows and does not say.


def _unread(reader: StreamReader) -> bytearray:
    """What has come, and was not read."""
    return reader._buffer  # type: ignore[attr-defined, no-any-return]


def _waits(reader: StreamReader) -> bool:
    """Somebody waits for more than has come, and nothing has come since that wakes him."""
    return reader._waiter is not None  # type: ignore[attr-defined]


class _Client(AbstractAsyncContextManager[None]):
    """A connection, and whether its handler is where it can be moved."""

    def __init__(self, server: StreamServer, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.reader = StreamReader(self, limit=limit, loop=loop)
        self.writer: Optional[asyncio.StreamWriter] = None
        self._idle = False
        self.parked = False
        self.given = False  # the successor has it, too
        self._was_reading = False

    async def connect(self, connection: socket.socket) -> asyncio.StreamWriter:
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=self._loop)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, connection)
        self.writer = asyncio.StreamWriter(transport, protocol, self.reader, self._loop)
        return self.writer

    # ---- idle()

    async def __aenter__(self) -> None:
        self._idle = True
        if self._server._parking and len(_unread(self.reader)) <= _STATE_BYTES_MAX:
            self._park()
            await self._server._resumed.wait()

    async def __aexit__(self, kind: Optional[type[BaseException]], *_: object) -> None:
        # A handler that is woken by something else, as by a timeout, has no connection as long as it is parked.
        if self.parked and kind is not asyncio.CancelledError:
            await self._server._resumed.wait()
        self._idle = False

    # ---- what the server does

    def look(self) -> None:
        """Parks it if its handler waits for a request that has not come, or not all of it."""
        if self._server._parking and self._idle and not self.parked and _waits(self.reader):
            self._park()

    def _park(self) -> None:
        """Nothing is read of it from here on."""
        assert self.writer is not None
        self.parked = True
        self._was_reading = self.writer.transport.is_reading()  # type: ignore[attr-defined]
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        self._server._is_parked(self)

    def lose(self) -> None:
        """Closes it, as if the client had hung up; what was read of it is the successor's business."""
        if self.given and self.writer is not None:
            _unread(self.reader).clear()
            self.writer.transport.abort()

    def resume(self) -> None:
        self.given = False
        if self.parked and self._was_reading and self.writer is not None:
            self.writer.transport.resume_reading()  # type: ignore[attr-defined]
        self.parked = False

    def unsent(self) -> int:
        """Bytes of replies that the kernel has no room for, as the client does not read."""
        return self.writer.transport.get_write_buffer_size() if self.writer is not None else 0

    async def flush(self) -> None:
        """Until nothing is unsent. OSError: the client has hung up."""
        assert self.writer is not None
        transport = self.writer.transport
        low, high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(0)
        try:
            await self.writer.drain()
        finally:
            transport.set_write_buffer_limits(high, low)


class StreamServer:
    """What asyncio.start_server is, for a shared listener: ``serve(reader, writer)`` runs as a task for each connection.

    Make it inside the loop. Its connections move to the successor, if ``serve`` has ``async with reader.idle():`` around its
    wait for a request: ``move`` in the drain, ``resume`` after a rollback, and ``take`` in the successor, whose ``serve``
    begins with the bytes that were read and not served.

    The other difference to asyncio's is in ``close``: after it every connection that was accepted has its task, and is
    waited for by ``wait_closed``. In a Server of asyncio some are still between accept(2) and their task, and would be lost.
    """

    def __init__(
        self,
        listener: Listener,
        serve: Callable[[StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
        *,
        limit: int = 2**16,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener, self._serve, self._limit = listener, serve, limit
        #: Those that serve a connection now.
        self.tasks: set[asyncio.Task[None]] = set()
        self._clients: set[_Client] = set()
        self._busy: set[_Client] = set()  # those of them that are not parked
        self._quiet = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._listen()

    def close(self) -> None:
        """Stops accepting, at once. Whoever connects waits in the backlog for the process that serves next."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    async def wait_closed(self, timeout: Optional[float] = None) -> None:
        """Until all connections are served, or, without an error, the timeout has run out."""
        until = None if timeout is None else self._loop.time() + timeout
        while self.tasks:
            left = None if until is None else until - self._loop.time()
            done, _ = await asyncio.wait(self.tasks, timeout=left)
            if not done:
                return

    # ---- moving

    async def move(self, event: Event, name: str) -> None:
        """For the drain: stops accepting, and gives all connections to the successor, under this name.

        Waits before until each handler has come to its ``idle()``, where it stays, or has ended. What it raises fails the
        drain. TimeoutError: some have not, or a client has not read its reply, just before the event's deadline. TooBig: a
        client has sent more than 60 KiB of a request.

        If a successor dies that has committed, the connections that it has had are closed, and their handlers find the end
        of them.
        """
        self.close()
        self._resumed.clear()
        event._when_lost(self._lose)
        try:
            await asyncio.wait_for(self._settle(), None if event.remaining == math.inf else event.remaining - _MARGIN_S)
        except asyncio.TimeoutError:
            busy = f"{len(self._busy)} connections are in a request" if self._busy else "a client does not read its reply"
            raise TimeoutError(busy) from None
        for client in self._clients:
            assert client.writer is not None
            if not client.writer.transport.is_closing():
                connection = client.writer.get_extra_info("socket")
                event.put_connection(connection, name, _unread(client.reader))
                client.given = True

    def _lose(self) -> None:
        for client in self._clients:
            client.lose()

    async def _settle(self) -> None:
        while self._busy:
            # Again and again: whoever has been woken by a part of a request may wait for the rest in a moment.
            for client in tuple(self._busy):
                client.look()
            if self._busy:
                self._quiet.clear()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._quiet.wait(), _LOOK_S)
        await asyncio.gather(*(client.flush() for client in self._clients if client.unsent()), return_exceptions=True)

    def resume(self, listener: Listener) -> None:
        """After a rollback: goes on with its connections, and accepts on this listener, or closes it if it never stopped."""
        for client in self._clients:
            client.resume()
        self._busy.update(self._clients)
        self._resumed.set()
        if self._listener.fileno() >= 0:
            listener.close()
        else:
            self._listener = listener
            self._listen()

    def take(self, connection: Connection) -> None:
        """In the successor, after the commit: serves one of ``Handoff.connections()``."""
        self._start(connection.socket(), connection.state)

    @property
    def _parking(self) -> bool:
        """A handler that comes to its ``idle()`` stays there."""
        return not self._resumed.is_set()

    def _is_parked(self, client: _Client) -> None:
        self._busy.discard(client)
        if not self._busy:
            self._quiet.set()

    # ---- serving

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in FULL:
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(PAUSE_S, self._listen)
            elif not isinstance(error, BlockingIOError) and error.errno not in OF_ONE_CLIENT:
                raise
            return
        self._start(connection, b"")

    def _start(self, connection: socket.socket, unread: bytes) -> None:
        connection.setblocking(False)
        client = _Client(self, self._limit, self._loop)
        client.reader.feed_data(unread)
        self._clients.add(client)
        self._busy.add(client)
        task = self._loop.create_task(self._run(client, connection))
        self.tasks.add(task)
        task.add_done_callback(lambda task: self._ended(client, task))

    async def _run(self, client: _Client, connection: socket.socket) -> None:
        writer = await client.connect(connection)
        try:
            await self._serve(client.reader, writer)
        finally:
            writer.close()
        with suppress(OSError):
            await writer.wait_closed()  # the last of its reply may still be here

    def _ended(self, client: _Client, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._clients.discard(client)
        self._is_parked(client)
