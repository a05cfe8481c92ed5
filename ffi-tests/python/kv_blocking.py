#!/usr/bin/env python3
"""The store with a thread for each client. See kv_store.py; how a connection ends is in examples-c/kv.c."""

import select
import signal
import socket
import struct
import threading

import kv_store
from kv_store import FIRST_REQUEST_S, HANG_UP_S, LINE_BYTES_MAX, MARGIN_S, SEND_S

import handoff


def readable(sockets, timeout_s=None):
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN)
    return poll.poll(None if timeout_s is None else timeout_s * 1000)


class Server:
    def __init__(self, h, store):
        self.h, self.store = h, store
        self.draining = False
        self.drain_read, self.drain_write = socket.socketpair()  # readable while we drain: wakes the idle clients
        self.gone = threading.Condition()
        self.clients = 0
        self.listener = self.acceptor = None

    def accept(self, listener):
        self.draining = False
        self.listener = listener
        self.acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self.acceptor.start()

    def _accept(self, listener):
        for connection, _ in listener:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SEND_S), 0))
            with self.gone:
                self.clients += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def drain(self, enough):
        """Whoever knocks from here on waits in the backlog for the one that serves next."""
        self.draining = True
        self.drain_write.send(b"x")
        self.listener.close()
        self.acceptor.join()
        self.listener = None
        with self.gone:
            while self.clients and not enough():
                self.gone.wait(0.05)
        self.drain_read.recv(1)

    # ---- one client

    def _serve(self, connection):
        try:
            with connection:
                if self._converse(connection):
                    while readable([connection], HANG_UP_S) and connection.recv(LINE_BYTES_MAX):
                        pass
        except OSError:
            pass  # it has hung up
        finally:
            with self.gone:
                self.clients -= 1
                self.gone.notify_all()

    def _converse(self, connection):
        """True: it was told to hang up."""
        data, asked = b"", False
        while True:
            line, end, rest = data.partition(b"\n")
            if end:
                reply, asked, data = self._answer(line), True, rest
                told = reply is None or self.draining
                connection.sendall((b"CLOSE" if reply is None else reply + b" CLOSE" if told else reply) + b"\n")
                if told:
                    return True
            elif len(data) >= LINE_BYTES_MAX:
                connection.sendall(b"ERR the line is too long\n")
                return False
            elif self._request_comes(connection, asked):
                got = connection.recv(LINE_BYTES_MAX - len(data))
                if not got:
                    return False
                data += got
            else:
                connection.sendall(b"CLOSE\n")
                return True

    def _request_comes(self, connection, asked):
        """False: the drain has begun, and this client has nothing to ask. One that has just connected is about to."""
        ready = readable([connection, self.drain_read])
        if any(fd == connection.fileno() for fd, _ in ready):
            return True
        return not asked and bool(readable([connection], FIRST_REQUEST_S))

    def _answer(self, line):
        """None: not executed, since the data is not ours any more."""
        words = line.split()
        try:
            with self.h.writing(), self.store.lock:
                return self._set(*words[1:]) if kv_store.is_set(words) else self.store.read(words)
        except handoff.Sealed:
            return None
        except OSError as error:
            return f"ERR not written: {error}".encode()

    def _set(self, key, value):
        store = self.store
        revision = store.write(key, value)
        while store.durable < revision:
            if store.syncing:
                store.synced.wait()
                store._check()
            else:
                store.sync()  # for all that wait
        store.put(key, value, revision)
        return b"OK %d" % revision


def main():
    h, store, port = kv_store.start()
    server = Server(h, store)
    signal.signal(signal.SIGTERM, lambda *_: h.stop())

    @h.on_drain
    def drain(event):
        server.drain(lambda: event.remaining <= MARGIN_S)

    @h.on_seal
    def seal(event):
        store.close()
        return store.revision

    @h.on_resume
    def resume(event):
        store.open()
        if server.listener is None:
            server.accept(kv_store.listener(h))

    listener = kv_store.listener(h, port)
    kv_store.begin(h, store)
    server.accept(listener)
    h.serve()
    server.drain(lambda: False)
    store.close()


main()
