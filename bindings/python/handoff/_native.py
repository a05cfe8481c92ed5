"""The C ABI, as include/handoff.h declares it: where the library is, its structs, and the type of every function."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from typing import Any, Optional, Union

ABI = 1
SONAME = "libhandoff.so.0"


class Result(IntEnum):
    """What a call returns when it did not fail."""

    OK = 0
    COLD_START = 1
    SUCCESSOR = 2
    REPLACED = 3
    STOPPED = 4
    PENDING = 5


class ErrorCode(IntEnum):
    """Why a call failed: ``Error.code``."""

    EINVAL = -1
    ENOMEM = -2
    ESYSTEM = -3
    EBUSY = -4
    ESTATE = -5
    EFORKED = -6
    EPANIC = -7
    EABORTED = -8
    ESTALE = -9
    ELOCKED = -10
    ESEALED = -11
    ENOTGIVEN = -12
    EREFUSED = -13
    EVERSION = -14
    EPROTOCOL = -15
    ETOOBIG = -16
    EDUPLICATE = -17
    ELIMIT = -18
    ESTOPPED = -19
    ERESUME = -20
    ENONAME = -21


class Phase(IntEnum):
    """Where this process is. The data may be written in BEGUN, SERVING, DRAINING and SEALING."""

    STARTING = 0
    BEGUN = 1
    SERVING = 2
    DRAINING = 3
    SEALING = 4
    SEALED = 5
    RESUMING = 6
    REPLACED = 7


class EventKind(IntEnum):
    """What an event asks for, or says."""

    DRAIN = 1
    SEAL = 2
    RESUME = 3
    CONNECTIONS = 4
    REPLACED = 5
    STOPPED = 6
    CONFIRMED = 7
    PARKED = 8


class Option(IntEnum):
    """A setting of ``handoff_config_set_str`` or ``handoff_config_set_int``."""

    CONTROL_PATH = 1
    DATA_DIR = 2
    BUILD_ID = 3
    MODES = 4
    FORKS = 5
    HELPER_THREAD = 6
    NETWORK_DATA_DIR = 7
    TRANSFER = 8


class Mode(IntEnum):
    """Whether incumbent and successor may both hold the data: ``Handoff(mode=...)``."""

    EXCLUSIVE = 1
    OVERLAP = 2


class Forks(IntEnum):
    """A value of ``Option.FORKS``."""

    COUNT = 0
    IGNORE = 1


class EventFlag(IntEnum):
    """``RawEvent.flags``"""

    AFTER_COMMIT = 1


class ReadyFlag(IntEnum):
    """``Readiness.flags``"""

    UNHEALTHY = 1
    FORMAT_CHANGES = 2


class Readiness(Structure):
    """``handoff_readiness``"""

    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("revisions", POINTER(c_uint64)),
        ("revision_count", c_size_t),
        ("detail", c_char_p),
    ]


class RawEvent(Structure):
    """``handoff_event``"""

    _fields_ = [
        ("size", c_uint32),
        ("kind", c_uint32),
        ("id", c_uint64),
        ("deadline_ns", c_uint64),
        ("cancel_fd", c_int32),
        ("flags", c_uint32),
        ("handoff_id", c_uint64),
    ]


class RawConnection(Structure):
    """``handoff_connection``"""

    _fields_ = [
        ("size", c_uint32),
        ("fd", c_int32),
        ("name", c_char_p),
        ("state", c_void_p),
        ("state_size", c_size_t),
    ]


LogFunction = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p, c_char_p)

# Function, result, arguments. Every pointer to a handle is a c_void_p; it is never looked into.
PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "handoff_version": (c_char_p, ()),
    "handoff_abi": (c_uint32, ()),
    "handoff_strerror": (c_char_p, (c_int,)),
    "handoff_errmsg": (c_void_p, (c_void_p, POINTER(c_char), c_size_t)),
    "handoff_free": (None, (c_void_p,)),
    "handoff_config_new": (c_void_p, ()),
    "handoff_config_set_str": (c_int, (c_void_p, c_int32, c_char_p)),
    "handoff_config_set_int": (c_int, (c_void_p, c_int32, c_int64)),
    "handoff_set_log": (c_int, (c_void_p, LogFunction, c_void_p, c_void_p)),
    "handoff_config_free": (None, (c_void_p,)),
    "handoff_detect_role": (c_int, (c_void_p, POINTER(c_void_p), POINTER(c_char), c_size_t)),
    "handoff_take_listener": (c_int, (c_void_p, c_char_p, c_uint32)),
    "handoff_listener_name": (c_char_p, (c_void_p, c_uint32)),
    "handoff_warmed": (c_int, (c_void_p,)),
    "handoff_wait_for_begin": (c_int, (c_void_p, c_int)),
    "handoff_announce_ready": (c_int, (c_void_p, POINTER(Readiness), c_int)),
    "handoff_pollfd": (c_int, (c_void_p,)),
    "handoff_dispatch": (c_int, (c_void_p, POINTER(RawEvent), c_size_t)),
    "handoff_stop": (c_int, (c_void_p,)),
    "handoff_done": (c_int, (c_void_p, c_uint64)),
    "handoff_sealed": (c_int, (c_void_p, c_uint64, POINTER(c_uint64), c_size_t)),
    "handoff_failed": (c_int, (c_void_p, c_uint64, c_char_p)),
    "handoff_progress": (c_int, (c_void_p, c_uint64, c_uint64, c_uint64)),
    "handoff_phase": (c_int, (c_void_p,)),
    "handoff_remaining_ms": (c_int, (c_void_p, c_uint64)),
    "handoff_write_begin": (c_int, (c_void_p,)),
    "handoff_write_end": (c_int, (c_void_p,)),
    "handoff_put_state": (c_int, (c_void_p, c_char_p, c_void_p, c_size_t)),
    "handoff_put_state_fd": (c_int, (c_void_p, c_char_p, c_int)),
    "handoff_take_state_fd": (c_int, (c_void_p, c_char_p)),
    "handoff_put_connection": (c_int, (c_void_p, c_int, c_char_p, c_void_p, c_size_t)),
    "handoff_next_connection": (c_int, (c_void_p, POINTER(RawConnection), c_size_t)),
}

# These return at once and call nobody back, so they keep the interpreter lock: to give it away in each write would cost more
# than the write, and with a busy thread beside up to the interpreter's switch interval.
QUICK = ("handoff_phase", "handoff_write_begin", "handoff_write_end", "handoff_stop")


def _candidates() -> list[tuple[str, str]]:
    """What to load, in order, and where that comes from."""
    chosen = os.environ.get("LIBHANDOFF")
    if chosen:
        return [(chosen, "LIBHANDOFF")]
    packed = os.path.join(os.path.dirname(os.path.abspath(__file__)), SONAME)
    found = [(packed, "this package")] if os.path.exists(packed) else []
    # Development files are not needed to run: the soname is enough.
    return [*found, (SONAME, "the system's libraries (ld.so)")]


class Library:
    """The functions, each with its type: ``library.handoff_stop(handle)``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._unlocked, self._locked = ctypes.CDLL(path), ctypes.PyDLL(path)
        abi = self._unlocked.handoff_abi
        abi.restype, abi.argtypes = PROTOTYPES["handoff_abi"]
        if abi() != ABI:
            raise ImportError(f"{path} has ABI {abi()}, this package is made for ABI {ABI}: install those of one release")
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(self._locked if name in QUICK else self._unlocked, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def load() -> Library:
    """The library; an ImportError tells where it was looked for, and what to do."""
    tried = []
    for path, origin in _candidates():
        try:
            return Library(path)
        except (OSError, AttributeError) as error:
            tried.append(f"  {path}, from {origin}: {error}")
    raise ImportError(
        "no libhandoff could be loaded. Tried:\n" + "\n".join(tried) + "\nInstall the wheel of this package, or the library "
        "itself, or set LIBHANDOFF to the path of libhandoff.so."
    )


_loaded: Optional[Library] = None


def library() -> Library:
    """The library of this process, loaded once."""
    global _loaded
    if _loaded is None:
        _loaded = load()
    return _loaded


def c_string(text: Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]) -> bytes:
    """Bytes for C, which end at the first NUL: so there must be none inside."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError(f"a NUL in {text!r}")
    return encoded
