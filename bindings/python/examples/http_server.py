#!/usr/bin/env python3
"""The HTTP server of the standard library, a thread for each connection, that can be replaced while it runs.

Its clients keep their connections: one that waits between two requests, or has sent half a request's head, moves. A head stays
in the kernel's queue until all of it is there, so there is nothing to move but the descriptor.

handoff run --listen http=127.0.0.1:8080 -- ./http_server.py      without a supervisor: ./http_server.py
"""

import contextlib
import http.server
import io
import os
import select
import signal
import socket
import threading
import time

import handoff

BUILD = os.environ.get("BUILD", "dev")
OWN_ADDRESS = ("127.0.0.1", 8080)  # without a supervisor
HEAD_MAX = 65536


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # so that no client holds up a drain, or the end, for longer

    def do_GET(self):
        body = f"{self.path} from {BUILD}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self):
        head = b""
        with contextlib.suppress(OSError):  # the client has hung up
            head = self.next_head()
        self.rfile = io.BytesIO(head)
        super().handle_one_request()  # of nothing: the connection is closed
        if self.server.stopping:
            self.close_connection = True

    def next_head(self):
        """Of a request; empty when there will be none."""
        known, until = 0, time.monotonic() + self.timeout
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        poll.register(self.server.moves, select.POLLIN)
        while True:
            # Readable when there is more than what is known, or the client has hung up.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, known + 1)
            ready = dict(poll.poll(max(0, until - time.monotonic()) * 1000))
            if self.connection.fileno() in ready:
                head = self.connection.recv(HEAD_MAX, socket.MSG_PEEK)
                end = head.find(b"\r\n\r\n") + 4
                if end >= 4:
                    return self.connection.recv(end)
                if len(head) == known or len(head) == HEAD_MAX:
                    return b""
                known = len(head)
            elif not ready or not self.server.park(self.connection):
                return b""
            else:
                until = time.monotonic() + self.timeout

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them

    def __init__(self, listener):
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()  # the one that it made for itself
        self.stopping = self.moving = False
        self.moves, self.start_moving = os.pipe()  # readable while the connections move
        self.changed = threading.Condition()
        self.open, self.parked = 0, set()
        self.listen(listener)

    def listen(self, listener):
        self.socket = listener
        # Not serve_forever: its shutdown takes up to half a second.
        self.acceptor = threading.Thread(target=self.accept)
        self.acceptor.start()

    def accept(self):
        for connection, address in self.socket:  # until it is closed
            self.process_request(connection, address)

    def process_request(self, connection, address):
        with self.changed:
            self.open += 1
        super().process_request(connection, address)

    def process_request_thread(self, connection, address):
        try:
            super().process_request_thread(connection, address)
        finally:
            with self.changed:
                self.open -= 1
                self.changed.notify_all()

    def close(self):
        """Whoever connects from here on waits in the backlog for the process that serves next."""
        self.socket.close()
        self.acceptor.join()

    def move(self, event):
        self.close()
        with self.changed:
            self.moving = True
            os.write(self.start_moving, b"x")
            if not self.changed.wait_for(lambda: self.open == len(self.parked), event.remaining):
                raise TimeoutError("a client is too slow")
            for connection in self.parked:
                event.put_connection(connection, "http")

    def park(self, connection):
        """Whether the connection is still there when the handoff was undone. A process that is replaced ends in here."""
        with self.changed:
            if self.moving:
                self.parked.add(connection)
                self.changed.notify_all()
                self.changed.wait_for(lambda: not self.moving)
                self.parked.discard(connection)
            return connection.fileno() >= 0

    def lose(self):
        """The successor has had them. Not shutdown, which it would feel."""
        with self.changed:
            for connection in self.parked:
                if connection.fileno() >= 0:
                    os.close(connection.detach())

    def resume(self):
        with self.changed:
            if self.moving:
                os.read(self.moves, 1)
            self.moving = False
            self.changed.notify_all()
        if self.socket.fileno() < 0:  # open: the handoff was undone before the drain
            self.listen(h.listener("http"))


h = handoff.Handoff(build_id=BUILD)
signal.signal(signal.SIGTERM, lambda *_: h.stop())


@h.on_drain
def drain(event):
    server.move(event)


@h.on_seal
def seal(event):
    pass  # there is no data


@h.on_parked
def parked(event):
    server.lose()


@h.on_resume
def resume(event):
    if event.after_commit:
        server.lose()
    server.resume()


listener = h.listener("http", bind=OWN_ADDRESS)
h.wait_for_begin()
h.announce_ready()
server = Server(listener)
for connection in h.connections():
    server.process_request(connection.socket(), None)
h.serve()
server.stopping = True
server.close()
server.server_close()
