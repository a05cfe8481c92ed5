"""A daemon that does not behave: hooks.py SCENARIO. What it does, and its log, is on standard error."""

import asyncio
import logging
import select
import signal
import sys
import threading
import time

import handoff

SCENARIO = sys.argv[1]
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
h = handoff.Handoff()
signal.signal(signal.SIGTERM, lambda *_: h.stop())
once = {SCENARIO}


def is_first(scenario):
    """Whether this is the scenario, and nothing has come of it yet."""
    if scenario not in once:
        return False
    once.remove(scenario)
    return True


def say(text):
    print(f"hooks: {text} @{time.monotonic_ns()}", file=sys.stderr, flush=True)


def see_the_end_of(event):
    """Waits until the event is cancelled, as every way to hear of it says."""
    ready = select.select([event], [], [], 60)[0]
    try:
        event.progress(1, 2)
        stale = False
    except handoff.Stale:
        stale = True
    say(f"cancelled: {ready == [event]} {event.cancelled} {event.remaining == 0} {stale}")


def write_for_a_while():
    with h.writing():
        say("writes")
        time.sleep(0.2)
        say("has written")


async def write_in_the_loop():
    with h.writing():
        say("writes")
        await asyncio.sleep(0.2)
        say("has written")


def drain(event):
    if is_first("drain-raises"):
        raise RuntimeError("told to fail the drain")
    if is_first("drain-serves"):
        h.serve()
    if is_first("drain-exits"):
        sys.exit(3)
    if is_first("drain-waits"):
        event.progress(0, 2)
        say(f"drains: {event.kind.name} {0 < event.remaining < 3600} {event.cancelled} {event.deadline > time.monotonic()}")
        see_the_end_of(event)
    if is_first("answers"):
        event.done()
        try:
            event.done()
        except handoff.Stale as error:
            say(f"twice: {error.code.name}")
    if is_first("writer"):
        threading.Thread(target=write_for_a_while).start()
        time.sleep(0.05)


async def drain_async(event):
    if is_first("async-raises"):
        raise RuntimeError("told to fail the drain")
    if is_first("async-waits"):
        say("drains")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            say(f"cancelled: {event.cancelled}")
            raise
    if is_first("async-writer"):
        global writer
        writer = asyncio.ensure_future(write_in_the_loop())
        await asyncio.sleep(0.05)


def seal(event):
    say("seals")
    if is_first("seal-raises"):
        raise OSError("told to fail the seal")
    if is_first("seal-lies"):
        return -1
    return 5


def resume(event):
    say("resumes")
    if is_first("resume-raises"):
        raise RuntimeError("told to fail the resume")


if SCENARIO != "no-hooks":
    h.on_drain(drain_async if SCENARIO.startswith("async") else drain)
    h.on_seal(seal)
    h.on_resume(resume)
if SCENARIO == "resume-raises":
    once.add("seal-raises")
h.wait_for_begin()
h.announce_ready(5)
say(f"serves: {h.is_successor}")


async def main():
    await h.serve_async()


if SCENARIO.startswith("async"):
    asyncio.run(main())
else:
    h.serve()
say("stopped")
