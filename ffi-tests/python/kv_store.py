"""The store of examples-c/kv.c, in Python: the same requests, the same log, the same listener.

    kv_blocking.py [DATA_DIR [PORT]]     threads
    kv_asyncio.py [DATA_DIR [PORT]]      one asyncio loop

A client keeps its connection through a handoff: it moves to the successor, with what was read of it and not executed.

KV_BUILD     what PING says after the pid; default "dev".
KV_FAULT     unhealthy: is ready, and says that it is not well; crash: exits with 9 between begin and ready.
"""

import contextlib
import errno
import os
import sys
import threading

import handoff

LINE_BYTES_MAX = 4096
FIRST_REQUEST_S = 0.02  # whoever has just connected is about to ask
HANG_UP_S = 1.0  # for a client that was told to hang up
SEND_S = 5.0  # for a client to read its reply
LINEAGE_BYTES_MAX = 1000  # the last of it
MARGIN_S = 0.05  # before the end of the grace: a late answer is none
BUILD = os.environ.get("KV_BUILD") or "dev"
FAULT = os.environ.get("KV_FAULT") or ""


def fnv1a(text):
    total = 2166136261
    for byte in text:
        total = (total ^ byte) * 16777619 & 0xFFFFFFFF
    return total


class Store:
    """A table, and a log that has a line for each SET: "<checksum> <revision> <key> <value>"."""

    def __init__(self, directory):
        self.lock = threading.Lock()
        self.synced = threading.Condition(self.lock)
        self.dir = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.log = -1  # while it is not ours to write
        self.size = self.revision = self.durable = 0
        self.syncing = False  # somebody is in fdatasync, for all that wait
        self.broken = False  # a write or a sync failed: nobody knows what is on disk
        self.table = {}
        self.lineage = BUILD.encode()  # state that is in no file: each successor gets it, and adds itself

    # ---- the log

    def warm(self):
        """Reads what is there, while another process may still write: whole lines do not change any more."""
        try:
            log = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            self._catch_up(log)
        finally:
            os.close(log)

    def open(self):
        """Opens the log for writing, and reads what is not known yet."""
        with self.lock:
            if self.log >= 0:
                return  # the handoff was given up before the seal
            log = self._open(os.O_RDWR | os.O_APPEND | os.O_CREAT)
            self._catch_up(log)
            if os.fstat(log).st_size > self.size:
                os.ftruncate(log, self.size)  # a torn last line was never acknowledged
            os.fdatasync(log)  # the last lines may be in memory only, if their writer was killed before its sync
            if self.size == 0:
                os.fsync(self.dir)
            self.durable, self.log = self.revision, log

    def close(self):
        """Everything is on disk, and nothing more is written."""
        with self.lock:
            while self.syncing:
                self.synced.wait()
            self._check()
            self.broken = True
            os.fdatasync(self.log)
            os.close(self.log)
            self.broken, self.log, self.durable = False, -1, self.revision
            self.synced.notify_all()

    def _open(self, flags):
        return os.open("kv.log", flags, 0o644, dir_fd=self.dir)

    def _catch_up(self, log):
        with os.fdopen(os.dup(log), "rb") as lines:
            lines.seek(self.size)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._replay(line)

    def _replay(self, line):
        checksum, _, body = line[:-1].partition(b" ")
        words = body.split(b" ")
        if len(words) != 3 or int(checksum, 16) != fnv1a(body) or int(words[0]) != self.revision + 1:
            raise OSError(errno.EBADMSG, f"kv.log is damaged at byte {self.size}")
        self.revision += 1
        self.size += len(line)
        self.put(words[1], words[2], self.revision)

    def _check(self):
        if self.broken:
            raise OSError(errno.EIO, "the log is broken")

    def put(self, key, value, revision):
        """Requests that were synced together come here in any order: the highest revision wins."""
        if self.table.get(key, (0,))[0] < revision:
            self.table[key] = (revision, value)

    # ---- writes; with the lock held

    def write(self, key, value):
        """Appends a line; its revision. It is not on disk yet."""
        self._check()
        body = b"%d %s %s" % (self.revision + 1, key, value)
        line = b"%08x %s\n" % (fnv1a(body), body)
        try:
            if os.write(self.log, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.broken = True
            os.ftruncate(self.log, self.size)  # take back what is there of the line, and go on
            self.broken = False
            raise
        self.revision += 1
        self.size += len(line)
        return self.revision

    def sync(self):
        """Everything that was written is on disk. Lets the lock go meanwhile."""
        revision, self.syncing = self.revision, True
        self.lock.release()
        try:
            os.fdatasync(self.log)
            ok = True
        except OSError:
            ok = False
        self.lock.acquire()
        self.syncing = False
        self.broken = self.broken or not ok
        self.durable = revision if ok else self.durable
        self.synced.notify_all()
        self._check()

    def read(self, words):
        """The reply to everything but a SET."""
        if len(words) == 2 and words[0] == b"GET":
            found = self.table.get(words[1])
            return b"VALUE " + found[1] if found else b"NONE"
        if words == [b"COUNT"]:
            return b"COUNT %d %d" % (len(self.table), self.durable)
        if words == [b"PING"]:
            return f"PONG {os.getpid()} {BUILD}".encode()
        if words == [b"LINEAGE"]:
            return b"LINEAGE " + self.lineage
        return b"ERR not a request"


def confirmed(event):
    print(f"kv: {BUILD} is confirmed", file=sys.stderr, flush=True)


def is_set(words):
    return len(words) == 3 and words[0] == b"SET"


def start():
    """The handle, the store, and the port for a listener of its own."""
    directory = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HANDOFF_DATA_DIR")
    if not directory:
        sys.exit(f"usage: {sys.argv[0]} [DATA_DIR [PORT]], or HANDOFF_DATA_DIR=DATA_DIR {sys.argv[0]}")
    os.makedirs(directory, exist_ok=True)
    h = handoff.Handoff(data_dir=directory, build_id=BUILD)
    return h, Store(directory), int(sys.argv[2]) if len(sys.argv) > 2 else 0


def listener(h, port=0):
    given = h.listener("kv", bind=("127.0.0.1", port))
    if not h.listener_names:
        print(f"kv: listening on 127.0.0.1:{given.getsockname()[1]}", file=sys.stderr)
    return given


def open_data(h, store):
    """After begin. What ``announce_ready`` is told."""
    store.open()
    with contextlib.suppress(handoff.NoName):  # a cold start
        store.lineage = bytes(h.state("lineage")[-LINEAGE_BYTES_MAX:]) + b" " + store.lineage
    if FAULT == "crash":
        os._exit(9)
    healthy = FAULT != "unhealthy"
    return {"revisions": store.revision, "healthy": healthy, "detail": None if healthy else "told to be unhealthy"}
