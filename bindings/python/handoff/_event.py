"""What the application is asked to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import Array, c_uint64
from typing import TYPE_CHECKING, Optional, Union

from ._errors import Stale
from ._native import EventKind, RawEvent

if TYPE_CHECKING:
    from ._handle import Handoff

# One revision, or one for each shard, or none.
Revisions = Union[int, Sequence[int], None]

_INT_MAX = 2**31 - 1
_NO_DEADLINE = 2**64 - 1


def revision_array(revisions: Revisions) -> Optional[Array[c_uint64]]:
    """For C. A number that does not fit is an error: ctypes would cut it off in silence."""
    if revisions is None:
        return None
    numbers = [revisions] if isinstance(revisions, int) else list(revisions)
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number < 2**64:
            raise ValueError(f"{number!r} is not a revision: a whole number from 0 to 2**64 - 1")
    return (c_uint64 * len(numbers))(*numbers)


class Event:
    """A drain, a seal or a resume, until it is answered; or the news that it is over: REPLACED, STOPPED.

    A hook gets it, and need not answer it by itself. All of it may be used from any thread.
    """

    def __init__(self, handoff: Handoff, raw: RawEvent) -> None:
        self._handoff = handoff
        self._cancel_fd: int = raw.cancel_fd
        self.id: int = raw.id
        #: An EventKind.
        self.kind = EventKind(raw.kind)
        #: The same in every log of this handoff; 0 outside one.
        self.handoff_id: int = raw.handoff_id
        #: As of time.monotonic(), in seconds; math.inf: none.
        self.deadline: float = math.inf if raw.deadline_ns == _NO_DEADLINE else raw.deadline_ns / 1e9
        #: An answer was given.
        self.answered = False

    def __repr__(self) -> str:
        return f"<handoff.Event {self.kind.name} {self.id}>"

    @property
    def remaining(self) -> float:
        """Seconds until the deadline: math.inf if there is none, 0 if it is late, cancelled or over."""
        left_ms = self._handoff._call("handoff_remaining_ms", self.id)
        return math.inf if left_ms == _INT_MAX else left_ms / 1000

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the answer any more: it is late, cancelled or over. Return, and RESUME follows."""
        return self.remaining == 0

    def fileno(self) -> int:
        """Becomes readable when the event is cancelled or late: for select(2). Good until the answer."""
        return self._cancel_fd

    def progress(self, done: int, total: int) -> None:
        """How far it is, shown to people. Stale: it is cancelled or late."""
        self._handoff._call("handoff_progress", self.id, done, total)

    def done(self) -> None:
        """DRAIN or RESUME succeeded."""
        self._handoff._call("handoff_done", self.id)
        self.answered = True

    def sealed(self, revisions: Revisions = None) -> None:
        """SEAL succeeded: all writers are closed, at this revision, or at these, one for each shard.

        Waits for those inside ``writing()`` and for forked children, at most until the deadline; then the lock is released.
        """
        array = revision_array(revisions)
        self._handoff._call("handoff_sealed", self.id, array, len(array) if array is not None else 0)
        self.answered = True

    def failed(self, why: str) -> None:
        """It could not be done; ``why`` is for people. Nothing happens if the event is over."""
        try:
            self._handoff._call("handoff_failed", self.id, why.replace("\0", "?").encode("utf-8", "replace"))
        except Stale:
            pass
        self.answered = True
