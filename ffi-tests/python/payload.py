#!/usr/bin/env python3
"""A daemon that gives all that can move, and takes it. What it sees is on standard error."""

import logging
import mmap
import os
import signal
import socket
import sys
import tempfile

import handoff

LARGE = 32 * 2**20
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
h = handoff.Handoff()
signal.signal(signal.SIGTERM, lambda *_: h.stop())
# Before and behind what moves.
end, other_end = socket.socketpair()
pipe_read, pipe_write = os.pipe()
memfd = os.memfd_create("memfd")
os.write(memfd, b"what is in the memfd")
given = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
given.write(b"what is in the file")
large = mmap.mmap(-1, LARGE)
large[-6:] = b"large\n"


def say(text):
    print(f"payload: {text}", file=sys.stderr, flush=True)


def error_of(call, *arguments):
    try:
        call(*arguments)
    except handoff.Error as error:
        return error.code.name
    return "none"


@h.on_drain
def drain(event):
    event.put_connection(end, "end", b"half a re\0quest")
    event.put_connection(other_end.fileno(), "other end")
    event.put_connection(pipe_write, "pipe", bytearray(60 * 1024))
    event.put_state("bytes", b"what is in the bytes")
    event.put_state("empty", b"")
    event.put_state("large", large)
    event.put_state("part", memoryview(large)[-6:-1])
    event.put_state_file("file", given)
    event.put_state_file("memfd", memfd)
    errors = [
        error_of(event.put_connection, pipe_read, "too big", bytes(60 * 1024 + 1)),
        error_of(event.put_connection, end, "twice"),
        error_of(event.put_connection, 9999, "closed"),
        error_of(event.put_connection, pipe_read, ""),
        error_of(event.put_state, "bytes", b"again"),
        error_of(event.put_state, "k" * 256, b""),
        error_of(event.put_state_file, "memfd", memfd),
        error_of(event.put_state_file, "socket", end),
        error_of(h.state, "bytes"),
    ]
    say(f"errors: {' '.join(errors)}")
    event.done()
    say(f"after the end: {error_of(event.put_state, 'late', b'')}")


@h.on_seal
def seal(event):
    event.put_state("from the seal", b"sealed")


@h.on_resume
def resume(event):
    say("resumes")


say(f"before begin: {error_of(h.state, 'bytes')} {error_of(h.take_state_file, 'file')} {error_of(list, h.connections())}")
h.wait_for_begin()
say(f"begun: {error_of(h.state, 'none')} {error_of(h.take_state_file, 'none')} {error_of(list, h.connections())}")
if h.is_successor:
    for key in ("bytes", "empty", "part", "from the seal", "memfd"):
        say(f"{key}: {h.state(key).tobytes()}")
    view = h.state("large")
    say(f"large: {len(view) == LARGE} {bytes(view[-6:])} {view.readonly} {h.state('large') is view}")
    file = h.take_state_file("file")
    say(f"file: {file.tell()} {file.seek(0)} {file.read()} {file.writable()} {error_of(h.take_state_file, 'file')}")
h.announce_ready(healthy=not os.environ.get("UNHEALTHY"))
for connection in h.connections():
    say(f"{connection.name}: {len(connection.state)} {connection.state[:15]} {connection.fileno() >= 0}")
    if connection.name == "pipe":
        os.close(connection.detach())
    elif connection.name == "end":
        taken_end = connection.socket()
    else:
        taken_end.send(b"from end to end")
        with connection.socket() as taken_other_end:
            say(f"heard: {taken_other_end.recv(100)}")
if h.is_successor:
    file.write(b", and more")
    say(f"written: {file.seek(0)} {file.read()}")
say("serves")
h.serve()
h.close()
say(f"after the handle: {bytes(view[-6:-1])}" if h.is_successor else "stopped")
