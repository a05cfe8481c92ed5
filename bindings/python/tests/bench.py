"""What a call costs: LIBHANDOFF=... PYTHONPATH=. python3 tests/bench.py (a release build, and nothing else to do)."""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit

import handoff
from handoff import _native

CALLS, TIMES = 200_000, 7


def show(what, seconds, unit_s, unit):
    print(f"{what:<58}{seconds / unit_s:10.1f} {unit}")


def per_call(what, call, calls=CALLS):
    show(what, min(timeit.repeat(call, number=calls, repeat=TIMES)) / calls, 1e-9, "ns")


def fence(h, calls=CALLS):
    start = time.perf_counter()
    for _ in range(calls):
        with h.writing():
            pass
    return (time.perf_counter() - start) / calls


def beside_a_busy_thread(what, measure):
    """A call that gives the interpreter lock away gets it back after up to the switch interval."""
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    show(what, measure(), 1e-9, "ns")
    stop.set()
    thread.join()


def import_time():
    def run(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    stdlib = "import ctypes, enum, logging, select, socket, threading, traceback"
    cases = {"bare interpreter": "pass", "import of its standard modules": stdlib, "import handoff": "import handoff"}
    for what, code in cases.items():
        show(what, statistics.median(run(code) for _ in range(15)), 1e-3, "ms")


def main():
    with tempfile.TemporaryDirectory() as directory, handoff.Handoff(data_dir=directory) as h:
        h.wait_for_begin()
        h.announce_ready()
        raw, pointer = _native.library(), h._pointer
        per_call("os.getppid() (floor)", os.getppid)
        per_call("handoff_phase by ctypes, lock kept", lambda: raw.handoff_phase(pointer))
        per_call("handoff_pollfd by ctypes, lock given away", lambda: raw.handoff_pollfd(pointer))
        show("with h.writing()", min(fence(h) for _ in range(TIMES)), 1e-9, "ns")
        beside_a_busy_thread("with h.writing(), beside a busy thread", lambda: fence(h, 20_000))
        per_call("h.dispatch() with nothing to do", h.dispatch, 20_000)
        import_time()


main()
