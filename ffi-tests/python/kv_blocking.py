#!/usr/bin/env python3
"""The store with a thread for each client. See kv_store.py; how a connection ends is in examples-c/kv.c."""

import select
import signal
import socket
import struct
import threading

import handoff

import kv_store
from kv_store import FIRST_REQUEST_S, HANG_UP_S, LINE_BYTES_MAX, MARGIN_S, SEND_S


def readable(sockets, timeout_s=None):
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN)
    return poll.poll(None if timeout_s is None else timeout_s * 1000)


class Client:
    def __init__(self, connection, data=b""):
        self.connection = connection
        self.data = data  # what it sent, and was not executed
        self.asked = False  # it has had a reply
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SEND_S), 0))

    def say(self, line):
        self.connection.sendall(line + b"\n")

    def hang_up(self):
        """Waits for it to do so, because a close with a request on the wire would be a reset."""
        while readable([self.connection], HANG_UP_S) and self.connection.recv(LINE_BYTES_MAX):
            pass


class Server:
    def __init__(self, h, store):
        self.h, self.store = h, store
        self.stopping = self.draining = False  # nobody comes after us; somebody does
        self.drain_read, self.drain_write = socket.socketpair()  # readable while we drain: wakes the idle clients
        self.gone = threading.Condition()
        self.threads = 0  # of clients
        self.parked = []  # clients without a thread: they are being moved
        self.listener = self.acceptor = None

    def accept(self, listener):
        self.listener = listener
        self.acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self.acceptor.start()

    def _accept(self, listener):
        for connection, _ in listener:
            self.start(Client(connection))

    def start(self, client):
        with self.gone:
            self.threads += 1
        threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def drain(self, enough):
        """Nobody accepts, and no client has a thread. Whoever knocks from here on waits for the one that serves next."""
        self.draining = True
        self.drain_write.send(b"x")
        self.listener.close()
        self.acceptor.join()
        self.listener = None
        with self.gone:
            while self.threads and not enough():
                self.gone.wait(0.05)
            if self.threads:
                raise TimeoutError("a client does not read its reply")

    def move(self, event):
        """Ours stay open, and untouched, until we know who serves."""
        for client in self.parked:
            event.put_connection(client.connection, "client", client.data)

    def lose(self):
        """A successor that has committed has had them: what we know of them is not true any more."""
        for client in self.parked:
            client.connection.close()
        self.parked = []

    def resume(self):
        """As if nothing had been: the parked clients get threads again."""
        with self.gone:
            if self.draining:
                self.drain_read.recv(1)
            self.draining = False
            parked, self.parked = self.parked, []
        for client in parked:
            self.start(client)
        if self.listener is None:
            self.accept(kv_store.listener(self.h))

    # ---- one client

    def _serve(self, client):
        parked = False
        try:
            while not (parked := self._park(client)):
                if not self._serve_once(client):
                    break
        except OSError:
            pass  # it has hung up
        finally:
            if not parked:
                client.connection.close()
            with self.gone:
                self.threads -= 1
                self.gone.notify_all()

    def _park(self, client):
        """What it sends from here on is for whoever serves next."""
        with self.gone:
            if not self.draining or self.stopping:
                return False
            self.parked.append(client)
            return True

    def _serve_once(self, client):
        """One request, or a part of one. False: the connection has ended."""
        line, end, rest = client.data.partition(b"\n")
        if len(line) >= LINE_BYTES_MAX:
            client.say(b"ERR the line is too long")
            return False
        if end:
            reply, client.asked, client.data = self._answer(line), True, rest
            told = reply is None or self.stopping
            client.say(b"CLOSE" if reply is None else reply + b" CLOSE" if told else reply)
        elif self._request_comes(client):
            got = client.connection.recv(LINE_BYTES_MAX - len(client.data))
            client.data += got
            return bool(got)
        else:
            told = self.stopping
            if told:
                client.say(b"CLOSE")
        if told:
            client.hang_up()
        return not told

    def _request_comes(self, client):
        """False: we drain. If nobody comes after us, one that has just connected is still heard: it is about to ask."""
        ready = readable([client.connection, self.drain_read])
        if not self.stopping:
            return not self.draining
        asks = any(fd == client.connection.fileno() for fd, _ in ready)
        return asks or (not client.asked and bool(readable([client.connection], FIRST_REQUEST_S)))

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
        event.put_state("lineage", store.lineage)
        server.move(event)

    @h.on_seal
    def seal(event):
        store.close()
        return store.revision

    @h.on_resume
    def resume(event):
        if event.after_commit:
            server.lose()
        store.open()
        server.resume()

    @h.on_parked
    def parked(event):
        server.lose()

    h.on_confirmed(kv_store.confirmed)
    listener = kv_store.listener(h, port)
    store.warm()
    h.wait_for_begin()
    h.announce_ready(**kv_store.open_data(h, store))
    for connection in h.connections():
        server.start(Client(connection.socket(), connection.state))
    server.accept(listener)
    h.serve()
    server.stopping = True
    server.drain(lambda: False)
    store.close()


main()
