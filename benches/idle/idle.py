"""benches/idle/idle.c in Python."""

import os

if os.environ.get("BENCH_HANDOFF_FLOOR"):
    os.write(1, b"!")
    os._exit(0)

import handoff  # noqa: E402: its import is a part of what is measured

h = handoff.Handoff()
if os.environ.get("BENCH_HANDOFF_START"):
    os.write(1, b"!")
    os._exit(0)
h.on_drain(lambda event: None)
h.on_seal(lambda event: None)
h.on_resume(lambda event: None)
h.wait_for_begin()
h.announce_ready()
h.serve()
