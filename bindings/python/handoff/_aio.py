"""Serving inside an asyncio loop."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._event import Event
from ._listener import FULL, OF_ONE_CLIENT, PAUSE_S, Listener
from ._native import EventKind

if TYPE_CHECKING:
    from ._handle import Handoff


class AsyncServing:
    """What ``Handoff`` has for asyncio."""

    async def serve_async(self: Handoff) -> None:  # type: ignore[misc]
        """``serve`` inside a loop: hooks may be coroutine functions, which are cancelled when their event is.

        A hook that is no coroutine function runs on the loop's thread, and nothing else runs meanwhile.
        """
        from ._handle import leave

        self._check_announced()
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        pollfd = self.fileno()
        loop.add_reader(pollfd, readable.set)
        running: Optional[_Running] = None
        try:
            while True:
                readable.clear()
                event = self.next_event()
                if event is None:
                    await readable.wait()
                    continue
                if running is not None:
                    await running.end()  # it is answered, or nobody waits for its answer
                    running = None
                if event.kind == EventKind.REPLACED:
                    leave()
                if event.kind == EventKind.STOPPED:
                    return
                hook = self._hook(event)
                if hook is not None:
                    running = _Running(self, event, hook)
        finally:
            loop.remove_reader(pollfd)
            if running is not None:
                running.task.cancel()


class _Running:
    """One event and its hook, in a task of their own: an abort is heard meanwhile."""

    def __init__(self, handoff: Handoff, event: Event, hook: Callable[[Event], Any]) -> None:
        self.answering = False
        self.task = asyncio.ensure_future(self._run(handoff, event, hook))

    async def end(self) -> None:
        if not self.answering:
            self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()  # SystemExit and the like

    async def _run(self, handoff: Handoff, event: Event, hook: Callable[[Event], Any]) -> None:
        try:
            result = hook(event)
            if inspect.isawaitable(result):
                result = await result
        except Exception as raised:
            handoff._fail(event, raised)
            return
        except BaseException as raised:
            event.failed(f"the {event.kind.name.lower()} was cancelled: {raised!r}")
            raise
        self.answering = True
        if event.kind == EventKind.SEAL:
            # It waits for those inside writing(), who may need this loop to get out.
            await asyncio.get_running_loop().run_in_executor(None, handoff._answer, event, result)
        else:
            handoff._answer(event, result)


class StreamServer:
    """What asyncio.start_server is, for a shared listener: ``serve(reader, writer)`` runs as a task for each connection.

    The difference is in ``close``: after it every connection that was accepted has its task, and is waited for by
    ``wait_closed``. In a Server of asyncio some are still between accept(2) and their task, and would be lost.
    Make it inside the loop, and once more for a resume.
    """

    def __init__(
        self,
        listener: Listener,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
        *,
        limit: int = 2**16,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener, self._serve, self._limit = listener, serve, limit
        listener.setblocking(False)
        #: Those that serve a connection now.
        self.tasks: set[asyncio.Task[None]] = set()
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

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
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
        task = self._loop.create_task(self._run(connection))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=self._limit)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
