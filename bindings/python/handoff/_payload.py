"""What moves to the successor: connections, and state."""

from __future__ import annotations

import ctypes
import fcntl
import io
import mmap
import os
import socket as sockets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_char_p, c_int, c_ssize_t, c_void_p
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from ._native import RawConnection, c_string

if TYPE_CHECKING:
    from ._handle import Handoff


class HasFileno(Protocol):
    """A socket, a file, ..."""

    def fileno(self) -> int: ...


#: A descriptor, or what has one.
File = Union[int, HasFileno]


class Connection:
    """A connection that the incumbent had open, and that is this process's to serve, and to close.

    name    what the incumbent called it.
    state   what it gave with it: as a rule, what it had read and not executed.
    """

    def __init__(self, name: str, state: bytes, descriptor: int) -> None:
        self.name, self.state, self._descriptor = name, state, descriptor

    def __repr__(self) -> str:
        return f"<handoff.Connection {self.name!r} {self._descriptor}>"

    def fileno(self) -> int:
        """-1: it was detached, or closed."""
        return self._descriptor

    def detach(self) -> int:
        """The number of the descriptor, which is the caller's from here on. Its modes are as the incumbent left them."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            raise ValueError(f"connection {self.name!r} was detached, or closed")
        return descriptor

    def socket(self) -> sockets.socket:
        """It as one from ``accept``: it blocks, unless there is a ``socket.setdefaulttimeout``. Detaches it."""
        made = sockets.socket(fileno=self.fileno())
        self.detach()
        made.settimeout(sockets.getdefaulttimeout())  # the incumbent's O_NONBLOCK came along
        return made

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self.detach())

    def __del__(self) -> None:
        if self._descriptor >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()


def descriptor_of(file: File) -> int:
    number = file if isinstance(file, int) else file.fileno()
    if not 0 <= number < 2**31:
        raise ValueError(f"{file!r} has no descriptor: it is closed, perhaps")
    return number


class _Buffer(Structure):
    """``Py_buffer``"""

    _fields_ = [
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]


_SIMPLE = 0
_get_buffer, _release_buffer = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
_get_buffer.argtypes, _get_buffer.restype = (ctypes.py_object, POINTER(_Buffer), c_int), c_int
_release_buffer.argtypes, _release_buffer.restype = (POINTER(_Buffer),), None


@contextmanager
def memory(data: Any) -> Iterator[tuple[int, int]]:
    """Address and size of what bytes, bytearray, memoryview, mmap and the like hold, without a copy.

    ctypes knows the address of bytes, and of what can be written; not of a mapping that is read-only.
    """
    buffer = _Buffer()
    _get_buffer(data, ctypes.byref(buffer), _SIMPLE)
    try:
        yield buffer.buf, buffer.len
    finally:
        _release_buffer(ctypes.byref(buffer))


def map_state(handoff: Handoff, key: str) -> memoryview:
    """``Handoff.state``"""
    descriptor = handoff._call("handoff_take_state_fd", c_string(key))
    try:
        size = os.fstat(descriptor).st_size
        # Private, since a sealed memfd can not be mapped shared before Linux 6.7.
        return memoryview(mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ) if size else b"")
    finally:
        os.close(descriptor)


def take_state_file(handoff: Handoff, key: str) -> io.FileIO:
    """``Handoff.take_state_file``"""
    number = handoff._call("handoff_take_state_fd", c_string(key))
    writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return io.FileIO(number, "r+" if writable else "r")


def next_connection(handoff: Handoff) -> Optional[Connection]:
    """The next one; the caller sees to it that no other thread is here, which would end the life of its state."""
    raw = RawConnection()
    if handoff._call("handoff_next_connection", ctypes.byref(raw), ctypes.sizeof(raw)) == 0:
        return None
    return Connection(os.fsdecode(raw.name), ctypes.string_at(raw.state, raw.state_size), raw.fd)
