"""What moves to the successor: connections, and state."""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import socket as sockets
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

from ._native import RawConnection, c_string

if TYPE_CHECKING:
    from ._handle import Handoff


class HasFileno(Protocol):
    """A socket, a file, ..."""

    def fileno(self) -> int: ...


#: A descriptor, or what has one.
File = Union[int, HasFileno]


class Connection(NamedTuple):
    """A connection that the incumbent had open, and that is this process's to serve, and to close."""

    #: What the incumbent called it.
    name: str
    #: What the incumbent gave with it: as a rule, what it had read of it and not executed.
    state: bytes
    #: As from ``accept``: it blocks, unless there is a ``socket.setdefaulttimeout``.
    socket: sockets.socket


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


class Views:
    """The memory that was given to the application, and belongs to the handle."""

    def __init__(self) -> None:
        self._arrays: list[weakref.ref[ctypes.Array[Any]]] = []

    def add(self, address: int, size: int) -> memoryview:
        if size == 0:
            return memoryview(b"")
        # Each memoryview, also a part of one, keeps this object.
        array = (ctypes.c_ubyte * size).from_address(address)
        self._arrays.append(weakref.ref(array))
        return memoryview(array).cast("B").toreadonly()

    def check(self) -> None:
        """BufferError: there is still a memoryview."""
        self._arrays = [array for array in self._arrays if array() is not None]
        if self._arrays:
            raise BufferError(f"{len(self._arrays)} memoryviews of Handoff.state() still exist: release them first")


def state(handoff: Handoff, key: str, views: Views) -> memoryview:
    """``Handoff.state``"""
    address, size = c_void_p(), c_size_t()
    handoff._call("handoff_get_state", c_string(key), ctypes.byref(address), ctypes.byref(size))
    return views.add(address.value or 0, size.value)


def take_state_file(handoff: Handoff, key: str) -> io.FileIO:
    """``Handoff.take_state_file``"""
    number = handoff._call("handoff_take_state_fd", c_string(key))
    writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return io.FileIO(number, "r+" if writable else "r")


def next_connection(handoff: Handoff) -> Union[Connection, None]:
    """The next one; the caller sees to it that no other thread is here, which would end the life of its state."""
    raw = RawConnection()
    if handoff._call("handoff_next_connection", ctypes.byref(raw), ctypes.sizeof(raw)) == 0:
        return None
    name, given = os.fsdecode(raw.name), ctypes.string_at(raw.state, raw.state_size)
    taken = sockets.socket(fileno=raw.fd)
    taken.settimeout(sockets.getdefaulttimeout())  # also the incumbent's mode, which came with it, if that was another
    return Connection(name, given, taken)
