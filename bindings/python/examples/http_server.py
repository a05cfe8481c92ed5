#!/usr/bin/env python3
"""The HTTP server of the standard library, a thread for each connection, that can be replaced while it runs.

handoff run --listen http=127.0.0.1:8080 -- ./http_server.py      without a supervisor: ./http_server.py
"""

import http.server
import os
import signal
import threading

import handoff

BUILD = os.environ.get("BUILD", "dev")
OWN_ADDRESS = ("127.0.0.1", 8080)  # without a supervisor


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5  # so that no client holds up a drain for longer

    def do_GET(self):
        body = f"{self.path} from {BUILD}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them

    def __init__(self, listener):
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()  # the one that it made for itself
        self.socket = listener
        # Not serve_forever: its shutdown takes up to half a second.
        self.acceptor = threading.Thread(target=self.accept)
        self.acceptor.start()

    def accept(self):
        for connection, address in self.socket:  # until it is closed
            self.process_request(connection, address)

    def drain(self):
        """Whoever connects from here on waits in the backlog for the process that serves next."""
        self.socket.close()
        self.acceptor.join()
        self.server_close()


h = handoff.Handoff(build_id=BUILD)
signal.signal(signal.SIGTERM, lambda *_: h.stop())


@h.on_drain
def drain(event):
    server.drain()


@h.on_seal
def seal(event):
    pass  # there is no data


@h.on_resume
def resume(event):
    global server
    if server.socket.fileno() < 0:  # open: the handoff was undone before the drain
        server = Server(h.listener("http"))


listener = h.listener("http", bind=OWN_ADDRESS)
h.wait_for_begin()
h.announce_ready()
server = Server(listener)
h.serve()
server.drain()
