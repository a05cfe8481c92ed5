"""A listening socket that other processes share."""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

BACKLOG = 4096
# Until somebody closes a descriptor, after EMFILE and the like.
PAUSE_S = 0.01
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# What a client did to its own connection, or its network: see accept(2).
OF_ONE_CLIENT = (
    errno.ECONNABORTED,
    errno.EPERM,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)


class Listener(socket.socket):
    """A socket that listens, whose description this process shares with the supervisor and with other daemons.

    So nothing here changes it for the others:

    - the description is O_NONBLOCK, and stays as it is. ``settimeout`` and ``setblocking`` say only how long ``accept``
      of this object waits, as they do for any socket; a new one waits without limit.
    - ``listen`` does nothing, since it listens already, with the backlog that the supervisor gave it.
    - ``shutdown`` is refused: it would end the listener for all.
    - ``close`` closes this process's descriptor alone, and wakes a thread that waits in ``accept``, which then raises
      OSError (EBADF). ``for connection, address in listener`` ends then.

    A datagram socket comes as a Listener, too. It does not wait: use select(2), or asyncio.
    """

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Optional[int] = None) -> None:
        if type == -1:
            family, type, proto = _describe(fileno)
        # With this bit the constructor leaves O_NONBLOCK alone, also if there is a default timeout.
        super().__init__(family, type | socket.SOCK_NONBLOCK, proto, fileno)
        self._patience: Optional[float] = None if self._waits() else 0.0
        self._lock = threading.RLock()
        self._inside = 0
        self._ended = False
        self._wake_read, self._wake_write = socket.socketpair()

    @classmethod
    def bind_to(cls, address: Any) -> Listener:
        """A listener of this process's own: at ``(host, port)``, or at the path of a Unix socket."""
        family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
        if family == socket.AF_INET and ":" in address[0]:
            family = socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.setblocking(False)
            if family != socket.AF_UNIX:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
            return cls(fileno=made.detach())

    # ---- what would change the description

    def settimeout(self, value: Optional[float]) -> None:
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        if value != 0 and not self._waits():
            raise ValueError("a shared datagram socket does not wait: use select, or asyncio")
        self._patience = value

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def gettimeout(self) -> Optional[float]:
        return self._patience

    def getblocking(self) -> bool:
        return self._patience != 0

    @property
    def timeout(self) -> Optional[float]:  # type: ignore[override]
        return self._patience

    def listen(self, backlog: int = BACKLOG) -> None:
        """Does nothing."""

    def shutdown(self, how: int) -> None:
        raise OSError(errno.EPERM, "shutdown would end a shared listener for all processes: close it")

    # ---- accepting

    def accept(self) -> tuple[socket.socket, Any]:
        until = None if self._patience is None else time.monotonic() + self._patience
        with self._entered():
            while True:
                try:
                    return super().accept()
                except BlockingIOError:
                    if self._patience == 0:
                        raise
                self._wait(until)

    def __iter__(self) -> Iterator[tuple[socket.socket, Any]]:
        """Connections, until somebody closes the listener."""
        while not self._ended:
            try:
                yield self.accept()
            except OSError as error:
                if self._ended:
                    return
                if error.errno in FULL:
                    time.sleep(PAUSE_S)
                elif error.errno not in OF_ONE_CLIENT:
                    raise

    def close(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, True
            if self._inside and not ended:
                self._wake_write.send(b"x")
            if self._inside:
                return  # the last one inside closes: nobody may meet another descriptor of the same number
        self._close_all()

    def _close_all(self) -> None:
        self._wake_read.close()
        self._wake_write.close()
        super().close()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with self._lock:
            if self._ended:
                raise OSError(errno.EBADF, "the listener is closed")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                last = self._ended and self._inside == 0
            if last:
                self._close_all()

    def _wait(self, until: Optional[float]) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
        ready = poll.poll(left_ms)
        if self._ended:
            raise OSError(errno.EBADF, "the listener was closed")
        if not ready:
            raise socket.timeout("timed out")

    def _waits(self) -> bool:
        return self.type != socket.SOCK_DGRAM


def _describe(fileno: Optional[int]) -> tuple[int, int, int]:
    """Family, type and protocol, without a look at the default timeout, which would change O_NONBLOCK."""
    probe = socket.socket(type=socket.SOCK_NONBLOCK, fileno=fileno)
    try:
        return int(probe.family), probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), probe.proto
    finally:
        probe.detach()
