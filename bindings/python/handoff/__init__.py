"""Replace the program of a running daemon, with nothing lost: see Handoff.

    import handoff, signal

    with handoff.Handoff() as h:                      # who am I?
        signal.signal(signal.SIGTERM, lambda *_: h.stop())
        listener = h.listener("http")

        @h.on_drain
        def drain(event): ...                         # and on_seal, on_resume

        h.wait_for_begin()                            # the lock is held: open the data
        h.announce_ready(revisions=revision)          # committed: accept, on a thread of yours
        h.serve()                                     # until it is stopped; a replaced process ends inside

Log lines of the library go to ``logging``, logger "handoff".
"""

from typing import TYPE_CHECKING, Any

from ._end import leave
from ._errors import (
    Aborted,
    Busy,
    CannotResume,
    Duplicate,
    Error,
    Forked,
    InvalidArgument,
    LimitReached,
    Locked,
    NoCommonVersion,
    NoName,
    NotGiven,
    OutOfMemory,
    Panicked,
    Pending,
    ProtocolBroken,
    Refused,
    Sealed,
    Stale,
    Stopped,
    SystemCallFailed,
    TooBig,
    WrongState,
)
from ._event import Event
from ._handle import VARIABLES, Handoff
from ._listener import Listener
from ._native import ErrorCode, EventKind, Mode, Phase, library
from ._payload import Connection

if TYPE_CHECKING:
    from ._streams import StreamReader, StreamServer

__version__ = "0.1.0"

#: Of the library that was loaded, "0.1.0".
library_version: str = library().handoff_version().decode()
#: Where it was loaded from.
library_path: str = library().path

__all__ = [
    "VARIABLES",
    "Aborted",
    "Busy",
    "CannotResume",
    "Connection",
    "Duplicate",
    "Error",
    "ErrorCode",
    "Event",
    "EventKind",
    "Forked",
    "Handoff",
    "InvalidArgument",
    "LimitReached",
    "Listener",
    "Locked",
    "Mode",
    "NoCommonVersion",
    "NoName",
    "NotGiven",
    "OutOfMemory",
    "Panicked",
    "Pending",
    "Phase",
    "ProtocolBroken",
    "Refused",
    "Sealed",
    "Stale",
    "Stopped",
    "StreamReader",
    "StreamServer",
    "SystemCallFailed",
    "TooBig",
    "WrongState",
    "leave",
    "library_path",
    "library_version",
]


def __getattr__(name: str) -> Any:
    # Who does not serve in an asyncio loop does not pay for its import.
    if name in ("StreamReader", "StreamServer"):
        from . import _streams

        return getattr(_streams, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
