"""What the application registers for its events."""

from __future__ import annotations

import traceback
from typing import Any, Callable, Optional, TypeVar

from ._errors import Stale
from ._event import Event
from ._log import logger
from ._native import EventKind

Hook = TypeVar("Hook", bound=Callable[[Event], Any])


class Hooks:
    """The part of a Handoff that has the hooks."""

    def __init__(self) -> None:
        self._hooks: dict[EventKind, Callable[[Event], Any]] = {}
        # Of this package: what closes the connections that were given, when they are the successor's for good.
        self._losses: list[Callable[[], None]] = []

    def on_drain(self, hook: Hook) -> Hook:
        """Decorates what stops accepting, finishes what is under way, and makes acknowledged writes durable.

        As for every hook: it gets the Event. When it returns, the answer is given; when it raises, the event has failed
        with this exception, whose traceback is logged. Under ``serve_async`` it may be a coroutine function.
        """
        return self._set(EventKind.DRAIN, hook)

    def on_seal(self, hook: Hook) -> Hook:
        """Decorates what flushes and closes the writers; it returns the last revision, or one for each shard, or None."""
        return self._set(EventKind.SEAL, hook)

    def on_resume(self, hook: Hook) -> Hook:
        """Decorates what opens again, takes listeners again, and accepts: the handoff was undone.

        What the drain or the seal would have closed may be open, since either may have been given up. When
        ``event.after_commit`` is true, close the connections that were given to the successor, which has died.
        """
        return self._set(EventKind.RESUME, hook)

    def on_parked(self, hook: Hook) -> Hook:
        """Decorates what closes the connections that were given, without a shutdown: the successor serves on probation.

        This process is its reserve, and stays sealed. If the successor dies, ``on_resume`` follows; else the process ends
        inside ``serve``. No answer is due.
        """
        return self._set(EventKind.PARKED, hook)

    def on_confirmed(self, hook: Hook) -> Hook:
        """Decorates what is for the end of the probation that this process was started in.

        Nobody takes over from it any more, and the format on disk may be changed. No answer is due.
        """
        return self._set(EventKind.CONFIRMED, hook)

    def _set(self, kind: EventKind, hook: Hook) -> Hook:
        if not callable(hook):
            raise TypeError(f"{hook!r} is not callable")
        self._hooks[kind] = hook
        return hook

    def _answer(self, event: Event, result: Any) -> None:
        """What the return of a hook says."""
        if event.answered:
            return
        try:
            if event.kind == EventKind.SEAL:
                event.sealed(result)
            else:
                event.done()
        except Stale:
            logger.info("the %s was over before its hook", event.kind.name.lower())
        except Exception as raised:
            self._fail(event, raised)

    def _fail(self, event: Event, raised: BaseException) -> None:
        logger.error("the %s failed", event.kind.name.lower(), exc_info=raised)
        if event.answered:
            return
        event.failed("".join(traceback.format_exception_only(type(raised), raised)).strip())

    def _hook(self, event: Event) -> Optional[Callable[[Event], Any]]:
        """The hook of this event; without one an event that needs an answer has failed."""
        hook = self._hooks.get(event.kind)
        if hook is None and not event.answered:
            why = f"no {event.kind.name.lower()} hook is registered"
            logger.error("%s", why)
            event.failed(why)
        return hook

    def _lose(self, event: Event) -> None:
        """Comes before the hook, which could go on with the connections that were given."""
        if event.kind not in (EventKind.PARKED, EventKind.RESUME):
            return
        losses, self._losses = self._losses, []
        if event.kind == EventKind.PARKED or event.after_commit:
            for close in losses:
                close()
