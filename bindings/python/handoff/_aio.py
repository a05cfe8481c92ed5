"""Serving inside an asyncio loop."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._end import leave
from ._event import Event
from ._native import EventKind

if TYPE_CHECKING:
    from ._handle import Handoff


async def wait(handoff: Handoff, function: str, arguments: tuple[Any, ...], timeout: Optional[float]) -> None:
    """``Handoff.wait_for_begin_async`` and ``announce_ready_async``"""
    loop, readable, pollfd = asyncio.get_running_loop(), asyncio.Event(), handoff.fileno()
    loop.add_reader(pollfd, readable.set)
    try:
        for left_s in handoff._turns(function, arguments, timeout):
            readable.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(readable.wait(), left_s)
    finally:
        loop.remove_reader(pollfd)


async def serve(handoff: Handoff) -> None:
    """``Handoff.serve_async``"""
    handoff._check_announced()
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    pollfd = handoff.fileno()
    loop.add_reader(pollfd, readable.set)
    running: list[_Running] = []
    try:
        while True:
            readable.clear()
            event = handoff.next_event()
            if event is None:
                await readable.wait()
                continue
            if not event.answered or event.kind in (EventKind.REPLACED, EventKind.STOPPED):
                while running:
                    await running.pop().end()  # it is answered, or nobody waits for its answer
            if event.kind == EventKind.REPLACED:
                leave()
            if event.kind == EventKind.STOPPED:
                return
            hook = handoff._hook(event)
            if hook is not None:
                running.append(_Running(handoff, event, hook))
    finally:
        loop.remove_reader(pollfd)
        for one in running:
            one.task.cancel()


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
            while (taker := await self._answer(handoff, event, await _called(hook, event))) is not None:
                await _called(taker, event)
        except Exception as raised:
            handoff._fail(event, raised)
        except BaseException as raised:
            event.failed(f"the {event.kind.name.lower()} was cancelled: {raised!r}")
            raise

    async def _answer(self, handoff: Handoff, event: Event, result: Any) -> Optional[Callable[[Event], Any]]:
        self.answering = True
        try:
            if event.kind == EventKind.SEAL or event.after_commit:
                # It waits for those inside writing(), who may need this loop to get out; or for the successor.
                return await asyncio.get_running_loop().run_in_executor(None, handoff._answer, event, result)
            return handoff._answer(event, result)
        finally:
            self.answering = False


async def _called(hook: Callable[[Event], Any], event: Event) -> Any:
    result = hook(event)
    return await result if inspect.isawaitable(result) else result
