"""What the application is asked to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from ctypes import Array, c_uint64, sizeof
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ._errors import Stale
from ._native import EventFlag, EventKind, RawEvent, Readiness, ReadyFlag, c_string
from ._payload import File, descriptor_of, memory

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
    """A drain, a seal or a resume, until it is answered; or news, which need no answer.

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
        #: The successor has committed. In a RESUME: it has died since, and the connections that were given to it must be
        #: closed, and not used again, since it may have read and written them. In a DRAIN: this is overlap mode, the
        #: successor serves, and the end of the drain is the end of this process.
        self.after_commit: bool = bool(raw.flags & EventFlag.AFTER_COMMIT)
        #: An answer was given, or none is due.
        self.answered = self.kind not in (EventKind.DRAIN, EventKind.SEAL, EventKind.RESUME)

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

    def put_connection(self, connection: File, name: str, state: Any = b"") -> None:
        """Gives the successor a duplicate of a connection, in a DRAIN or SEAL.

        Neither read, write, close nor shut down yours until RESUME, after which everything is as it was, but if it is
        ``after_commit``: close yours then. A process that is replaced ends with it open. Waits while the successor has not
        taken what was given before.

        connection   a socket, or whatever has a descriptor, or its number; no directory.
        name         for the successor, 1 to 255 bytes, as "client"; many may have the same.
        state        up to 60 KiB of bytes, or a buffer of them: what was read of it and not executed.

        Stale: the event was cancelled, or is late. WrongState: it was answered. Refused: the successor takes nothing.
        Duplicate: this connection was given already. TooBig. LimitReached: no descriptor is left.
        """
        with memory(state) as (address, size):
            number = descriptor_of(connection)
            self._handoff._call("handoff_put_connection", number, c_string(name), address, size)

    def put_state(self, key: str, data: Any) -> None:
        """Gives the successor a copy of bytes, bytearray, memoryview, mmap, ..., in a DRAIN or SEAL.

        It is copied once, in C, into sealed memory, while other threads run. The key has 1 to 255 bytes. Errors as
        ``put_connection``; Duplicate: the key was given already.
        """
        with memory(data) as (address, size):
            self._handoff._call("handoff_put_state", c_string(key), address, size)

    def put_state_file(self, key: str, file: File) -> None:
        """Gives the successor a file, or a memfd, of any size, without a copy, in a DRAIN or SEAL.

        It is an object with ``fileno()``, which is not flushed here, or a number. Keep what is in it unchanged until RESUME.
        Errors as ``put_state``; InvalidArgument: it is neither a file nor a memfd.
        """
        self._handoff._call("handoff_put_state_fd", c_string(key), descriptor_of(file))

    def _when_lost(self, close: Callable[[], None]) -> None:
        """Registers what closes the connections that are given, when they are the successor's for good."""
        self._handoff._losses.append(close)

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
        with suppress(Stale):
            self._handoff._call("handoff_failed", self.id, why.replace("\0", "?").encode("utf-8", "replace"))
        self.answered = True


def make_readiness(revisions: Revisions, detail: Optional[str], healthy: bool, format_changes: bool) -> Readiness:
    array = revision_array(revisions)
    flags = (0 if healthy else ReadyFlag.UNHEALTHY) | (ReadyFlag.FORMAT_CHANGES if format_changes else 0)
    count = len(array) if array is not None else 0
    text = None if detail is None else c_string(detail)
    return Readiness(sizeof(Readiness), flags, array, count, text)
