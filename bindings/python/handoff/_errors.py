"""One exception for each error code."""

from __future__ import annotations

from typing import Union

from ._native import ErrorCode, Result


class Error(Exception):
    """A call of the library failed.

    ``code`` is an ``ErrorCode`` (a plain number if the library is newer), ``function`` the call, ``detail`` what was
    tried, on what, and what to do.
    """

    def __init__(self, code: int, function: str, detail: str) -> None:
        super().__init__(code, function, detail)
        self.code: Union[int, ErrorCode, Result] = code
        self.function = function
        self.detail = detail.removeprefix(f"{function}: ")  # the library's own texts begin with it

    def __str__(self) -> str:
        return f"{self.function}: {self.detail}"


class InvalidArgument(Error, ValueError):
    """An argument or a setting makes no sense."""


class OutOfMemory(Error, MemoryError):
    """No memory."""


class SystemCallFailed(Error, OSError):
    """A system call failed."""

    def __init__(self, code: int, function: str, detail: str) -> None:
        Error.__init__(self, code, function, detail)


class Busy(Error):
    """Another thread is inside a call that belongs to one thread at a time."""


class WrongState(Error):
    """Not in this phase, or not in this version of the library."""


class Forked(Error):
    """Called in a forked child: the handle belongs to the parent."""


class Panicked(Error):
    """The library panicked, which is a bug in it; the handle can only be closed."""


class Aborted(Error):
    """The handoff was aborted: exit."""


class Stale(Error):
    """The event is over: answered, cancelled or late. The call did nothing."""


class Locked(Error):
    """Somebody else may write the data; ``detail`` names the process."""


class Sealed(Error):
    """The data must not be written now."""


class NotGiven(Error, LookupError):
    """No listener at all was given to this process: bind your own."""


class Refused(Error):
    """The other side refuses."""


class NoCommonVersion(Error):
    """No protocol version in common."""


class ProtocolBroken(Error):
    """The other side broke the protocol."""


class TooBig(Error):
    """More than fits."""


class Duplicate(Error):
    """Twice the same name or key."""


class LimitReached(Error):
    """A limit of the process or of the system."""


class Stopped(Error):
    """``stop`` was called."""


class CannotResume(Error):
    """This process cannot take over again: exit."""


class NoName(Error, LookupError):
    """Listeners were given, but none of this name."""


class Pending(Error, TimeoutError):
    """The timeout ran out; call the same method again."""

    def __init__(self, code: int, function: str, detail: str) -> None:
        Error.__init__(self, code, function, detail)


_CLASSES: dict[int, type[Error]] = {
    Result.PENDING: Pending,
    ErrorCode.EINVAL: InvalidArgument,
    ErrorCode.ENOMEM: OutOfMemory,
    ErrorCode.ESYSTEM: SystemCallFailed,
    ErrorCode.EBUSY: Busy,
    ErrorCode.ESTATE: WrongState,
    ErrorCode.EFORKED: Forked,
    ErrorCode.EPANIC: Panicked,
    ErrorCode.EABORTED: Aborted,
    ErrorCode.ESTALE: Stale,
    ErrorCode.ELOCKED: Locked,
    ErrorCode.ESEALED: Sealed,
    ErrorCode.ENOTGIVEN: NotGiven,
    ErrorCode.EREFUSED: Refused,
    ErrorCode.EVERSION: NoCommonVersion,
    ErrorCode.EPROTOCOL: ProtocolBroken,
    ErrorCode.ETOOBIG: TooBig,
    ErrorCode.EDUPLICATE: Duplicate,
    ErrorCode.ELIMIT: LimitReached,
    ErrorCode.ESTOPPED: Stopped,
    ErrorCode.ERESUME: CannotResume,
    ErrorCode.ENONAME: NoName,
}


def error(code: int, function: str, detail: str) -> Error:
    """The exception of this code."""
    if code in _CLASSES and code < 0:
        code = ErrorCode(code)
    return _CLASSES.get(code, Error)(code, function, detail)
