"""The handle: one per process."""

from __future__ import annotations

import ctypes
import io
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Optional, Union

from . import _payload
from ._end import leave
from ._errors import Busy, NotGiven, Pending, Sealed, WrongState, error
from ._event import Event, Revisions, make_readiness
from ._hooks import Hooks
from ._listener import Listener
from ._log import log_lines, logger, on_log
from ._native import (
    ErrorCode,
    EventKind,
    Forks,
    Mode,
    Option,
    Phase,
    RawEvent,
    Result,
    c_string,
    library,
)

#: What the supervisor sets, and ``Handoff()`` takes away.
VARIABLES = (
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "HANDOFF_CONTROL",
    "HANDOFF_DATA_DIR",
    "HANDOFF_SOCK_FD",
    "HANDOFF_ROLE",
)
_TEXT_BYTES = 4096
# A lock that another process holds is tried again after a while, which no descriptor tells.
_TURN_S = 0.05

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

# A library that is newer may have more.
_EVENT_KINDS, _PHASES = frozenset(EventKind), frozenset(Phase)


class _Fence(AbstractContextManager[None]):
    """``with h.writing():``"""

    __slots__ = ("_begin", "_end", "_handoff")

    def __init__(self, handoff: Handoff) -> None:
        native = library()
        self._handoff, self._begin, self._end = handoff, native.handoff_write_begin, native.handoff_write_end

    def __enter__(self) -> None:
        code = self._begin(self._handoff._pointer)
        if code == ErrorCode.ESEALED:
            raise Sealed(code, "handoff_write_begin", "the data must not be written now")
        if code != Result.OK:
            raise self._handoff._error(code, "handoff_write_begin")

    def __exit__(self, *_: Any) -> None:
        self._end(self._handoff._pointer)


class Handoff(Hooks):
    """This process's part in its own replacement. Make it first in main, before threads, and before descriptors are opened.

    It finds out who this process is (``is_successor``), and takes the supervisor's variables (``VARIABLES``) out of the
    environment; ``data_dir`` keeps the one that is asked for afterwards.

    control_path       default $HANDOFF_CONTROL; none: no control socket, the daemon can not be replaced.
    data_dir           default $HANDOFF_DATA_DIR; its lock says who may write.
    build_id           which build this is, for people, at most 256 bytes. Default: that of the Python interpreter.
    count_forks        the seal waits for forked children that have neither exec'ed nor exited. False: they never write.
    helper_thread      False: no thread that hears of an abort while a hook runs.
    network_data_dir   accept a data directory on NFS and the like, whose locks may not keep other hosts out.
    require_transfer   refuse a successor that takes neither connections nor state, before the drain.
    mode               Mode.OVERLAP, or "overlap": the successor serves before this process stops, so that somebody accepts
                       at every instant. Both hold the data then: there is no lock, ``writing`` lets everybody in, and two
                       that write the same data must agree on that among themselves. The incumbent hears of it when the
                       successor serves, by a drain whose ``event.after_commit`` is true, and whose end is the end of this
                       process. There is no seal and no resume. Both processes must say so.

    All calls that are said to belong to one thread at a time raise Busy when they overlap.
    """

    def __init__(
        self,
        *,
        control_path: Optional[Path] = None,
        data_dir: Optional[Path] = None,
        build_id: Optional[str] = None,
        count_forks: bool = True,
        helper_thread: bool = True,
        network_data_dir: bool = False,
        require_transfer: bool = False,
        mode: Union[Mode, str] = Mode.EXCLUSIVE,
    ) -> None:
        super().__init__()
        self._native = library()
        self._pointer: Optional[int] = None
        self._announced = False
        self._in_hook = False
        self._fence = _Fence(self)
        self._states: dict[str, memoryview] = {}
        self._taking = threading.Lock()
        chosen = os.fsdecode(data_dir) if data_dir is not None else os.environ.get("HANDOFF_DATA_DIR")
        #: The data directory, or None.
        self.data_dir: Optional[str] = chosen or None
        strings = {Option.CONTROL_PATH: control_path, Option.DATA_DIR: data_dir, Option.BUILD_ID: build_id}
        numbers = {
            Option.FORKS: Forks.COUNT if count_forks else Forks.IGNORE,
            Option.HELPER_THREAD: int(helper_thread),
            Option.NETWORK_DATA_DIR: int(network_data_dir),
            Option.TRANSFER: int(require_transfer),
            Option.MODES: Mode[mode.upper()] if isinstance(mode, str) else mode,
        }
        config = self._native.handoff_config_new()
        if not config:
            raise MemoryError
        try:
            for option, value in strings.items():
                if value is not None:
                    self._configure(self._native.handoff_config_set_str(config, option, c_string(value)), option.name)
            for option, number in numbers.items():
                self._configure(self._native.handoff_config_set_int(config, option, number), option.name)
            self._configure(self._native.handoff_set_log(config, on_log, None, None), "LOG")
            role = self._detect(config)
        finally:
            self._native.handoff_config_free(config)
        #: This process was started to replace another one.
        self.is_successor: bool = role == Result.SUCCESSOR

    def _detect(self, config: int) -> int:
        pointer, why = ctypes.c_void_p(), ctypes.create_string_buffer(_TEXT_BYTES)
        role: int = self._native.handoff_detect_role(config, ctypes.byref(pointer), why, _TEXT_BYTES)
        for name in VARIABLES:
            os.environ.pop(name, None)  # C has removed them, but this is a copy
        log_lines()
        if role < 0:
            raise error(role, "handoff_detect_role", why.value.decode("utf-8", "replace"))
        self._pointer = pointer.value
        return role

    def _configure(self, code: int, option: str) -> None:
        if code < 0:
            raise error(code, "handoff_config_set", f"{option}: {self._strerror(code)}")

    # ---- calls

    def _call(self, function: str, *arguments: Any) -> int:
        """A call of the library: its result if that is no error."""
        code: int = getattr(self._native, function)(self._pointer, *arguments)
        failure = self._error(code, function) if code < 0 else None
        log_lines()
        if failure is not None:
            raise failure
        return code

    def _error(self, code: int, function: str) -> Exception:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        if self._pointer is None:
            return error(code, function, "the handle is closed")
        if code != ErrorCode.EFORKED:
            self._native.handoff_errmsg(self._pointer, text, _TEXT_BYTES)
        return error(code, function, text.value.decode("utf-8", "replace") or self._strerror(code))

    def _strerror(self, code: int) -> str:
        text: bytes = self._native.handoff_strerror(code)
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        """Ends everything: the lock is released. Nobody else may use the handle meanwhile or later."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._native.handoff_free(pointer)
            log_lines()

    def __enter__(self) -> Handoff:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # ---- at any time, from any thread

    def fileno(self) -> int:
        """Readable when ``dispatch`` has work, in every phase: for select(2) and selectors; do not read it."""
        return self._call("handoff_pollfd")

    @property
    def phase(self) -> Union[Phase, int]:
        """A hint, not a fence: see ``writing``. A plain number, if only a newer library knows it."""
        code = self._native.handoff_phase(self._pointer)
        if code < 0:
            raise self._error(code, "handoff_phase")
        return Phase(code) if code in _PHASES else code

    def stop(self) -> None:
        """Asks to stop; what a handler of SIGTERM calls. ``serve`` and the waits before it return soon.

        Before the seal a handoff is aborted. Sealed, it goes on: the end is REPLACED, or STOPPED after a resume.
        """
        if self._pointer is not None:
            code = self._native.handoff_stop(self._pointer)
            if code < 0:
                raise self._error(code, "handoff_stop")

    def writing(self) -> AbstractContextManager[None]:
        """The fence that every write of the data passes; raises Sealed when the data must not be written.

        The seal waits until nobody is inside. To look at ``phase`` before a write is a race; this is not.
        """
        return self._fence

    def listener(self, name: Optional[str] = None, index: int = 0, *, bind: Any = None) -> Listener:
        """The index-th listener of this name, or of any; each call gives another duplicate, which is yours to close.

        NotGiven: none at all was given. Then, if there is ``bind``, the listener is made at that address. NoName: others
        were given.
        """
        try:
            given = c_string(name) if name is not None else None
            return Listener(fileno=self._call("handoff_take_listener", given, index))
        except NotGiven:
            if bind is None:
                raise
            return Listener.bind_to(bind)

    @property
    def listener_names(self) -> list[str]:
        """The names of the listeners that were given, in order."""
        names: list[str] = []
        while (name := self._native.handoff_listener_name(self._pointer, len(names))) is not None:
            names.append(os.fsdecode(name))
        return names

    # ---- the start (one thread at a time)

    def warmed(self) -> None:
        """Says that everything is loaded that does not need the data. A cold start: no effect."""
        self._call("handoff_warmed")

    def wait_for_begin(self, timeout: Optional[float] = None) -> None:
        """Waits until the data may be opened: then the lock is held. Python's signal handlers run meanwhile.

        Pending (a TimeoutError): call it again. Aborted: exit. Locked: another process serves this data. Stopped.
        """
        self._wait("handoff_wait_for_begin", (), timeout)

    def announce_ready(
        self,
        revisions: Revisions = None,
        *,
        detail: Optional[str] = None,
        healthy: bool = True,
        format_changes: bool = False,
        timeout: Optional[float] = None,
    ) -> None:
        """Says that this process could serve, and waits for the commit; then accept.

        revisions        the last one that was opened, or one for each shard; as many as the seal gives.
        detail           for people: where it listens, why it is unhealthy.
        healthy          False: it could not serve, and the handoff is undone.
        format_changes   it will change the format on disk, so that the incumbent could not take over any more.

        Pending: call it again, with the same arguments. Aborted: exit, touching nothing. Stopped.
        """
        readiness = make_readiness(revisions, detail, healthy, format_changes)
        self._wait("handoff_announce_ready", (ctypes.byref(readiness),), timeout)
        self._announced = True

    def _wait(self, function: str, arguments: tuple[Any, ...], timeout: Optional[float]) -> None:
        # Not one call that waits inside C: no signal handler of Python's would run.
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        for left_s in self._turns(function, arguments, timeout):
            poll.poll(left_s * 1000)

    def _turns(self, function: str, arguments: tuple[Any, ...], timeout: Optional[float]) -> Iterator[float]:
        """Calls it until it is through; between two calls, how many seconds to wait for ``fileno()`` at most."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._call(function, *arguments, 0) == Result.PENDING:
            left_s = _TURN_S if until is None else until - time.monotonic()
            if left_s <= 0:
                raise Pending(Result.PENDING, function, "the timeout ran out; call it again")
            yield min(left_s, _TURN_S)

    # ---- what the incumbent gave (one thread at a time)

    def state(self, key: str) -> memoryview:
        """What the incumbent gave by ``put_state``, or a file of its own, after begin: mapped, to read.

        The memory lives as long as a memoryview of it, or the handle. NoName: it gave none under this key, as always in a
        cold start.
        """
        with self._taking:
            if key not in self._states:
                self._states[key] = _payload.map_state(self, key)
        return self._states[key]

    def take_state_file(self, key: str) -> io.FileIO:
        """The file that the incumbent gave by ``put_state_file``, after begin, once: binary, unbuffered, yours to close.

        Write it only when ``announce_ready`` has returned: before, the incumbent may have to go on with it. The position in
        it came along. NoName: it gave none under this key, or ``state`` or this has had it.
        """
        return _payload.take_state_file(self, key)

    def connections(self) -> Iterator[_payload.Connection]:
        """The connections that the incumbent gave, in its order, after ``announce_ready``; each comes once, and is yours.

        Those that nobody takes are closed, with a warning in the log, ten seconds after ``serve`` has begun, or the last one
        was taken.
        """
        while True:
            with self._taking:
                connection = _payload.next_connection(self)
            if connection is None:
                return
            yield connection

    # ---- serving (one thread at a time)

    def next_event(self) -> Optional[Event]:
        """The next event, for a loop that answers by itself, without hooks; None: nothing now."""
        if self._in_hook:
            raise Busy(ErrorCode.EBUSY, "handoff_dispatch", "a hook is running, and this is inside it, or another thread")
        raw = RawEvent()
        while self._call("handoff_dispatch", ctypes.byref(raw), ctypes.sizeof(raw)) != 0:
            if raw.kind not in _EVENT_KINDS:
                logger.info("an event of kind %d, which a newer library has, is ignored", raw.kind)
                continue
            event = Event(self, raw)
            self._lose(event)
            return event
        return None

    def dispatch(self) -> Optional[EventKind]:
        """Runs the hooks of what is there, for a loop of your own that polls ``fileno()``.

        EventKind.STOPPED: shut down as you always did. EventKind.REPLACED: the data belongs to another process, so call
        ``leave()``. None: go on.
        """
        while (event := self.next_event()) is not None:
            if event.kind in (EventKind.REPLACED, EventKind.STOPPED):
                return event.kind
            hook = self._hook(event)
            if hook is None:
                continue
            self._in_hook = True
            try:
                while (taker := self._answer(event, hook(event))) is not None:
                    taker(event)
            except Exception as raised:
                self._fail(event, raised)
            except BaseException as raised:
                self._fail(event, raised)
                raise
            finally:
                self._in_hook = False
        return None

    def serve(self) -> None:
        """Waits for events, and runs hooks, on this thread; Python's signal handlers run, too. Returns when it is stopped.

        When this process is replaced, it ends here: see ``leave``. CannotResume: exit, the data is not yours.
        """
        self._check_announced()
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while (end := self.dispatch()) is None:
            poll.poll()
        if end == EventKind.REPLACED:
            leave()

    # ---- the same inside an asyncio loop, which goes on meanwhile; who has none does not pay for the import

    async def wait_for_begin_async(self, timeout: Optional[float] = None) -> None:
        """``wait_for_begin`` in a coroutine."""
        from . import _aio

        await _aio.wait(self, "handoff_wait_for_begin", (), timeout)

    async def announce_ready_async(
        self,
        revisions: Revisions = None,
        *,
        detail: Optional[str] = None,
        healthy: bool = True,
        format_changes: bool = False,
        timeout: Optional[float] = None,
    ) -> None:
        """``announce_ready`` in a coroutine."""
        from . import _aio

        readiness = make_readiness(revisions, detail, healthy, format_changes)
        await _aio.wait(self, "handoff_announce_ready", (ctypes.byref(readiness),), timeout)
        self._announced = True

    async def serve_async(self) -> None:
        """``serve`` in a coroutine: hooks may be coroutine functions, which are cancelled when their event is.

        A hook that is no coroutine function runs on the loop's thread, and nothing else runs meanwhile.
        """
        from . import _aio

        await _aio.serve(self)

    def _check_announced(self) -> None:
        if not self._announced:
            raise WrongState(ErrorCode.ESTATE, "serve", "serving needs announce_ready first")
