"""The handle without a supervisor: start, fence, signals, forks, errors, log."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import handoff
from handoff import ErrorCode, EventKind, Phase, _native


class WithData(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.data = directory.name

    def handle(self, **settings):
        h = handoff.Handoff(data_dir=self.data, **settings)
        self.addCleanup(h.close)
        return h

    def serving(self):
        h = self.handle()
        h.wait_for_begin()
        h.announce_ready()
        return h


class Start(WithData):
    def test_a_cold_start_goes_through_the_phases(self):
        settings = {"build_id": "7", "control_path": Path(self.data, "control"), "require_transfer": True}
        with self.handle(**settings) as h:
            self.assertEqual((h.is_successor, h.phase, h.data_dir), (False, Phase.STARTING, self.data))
            h.warmed()
            h.wait_for_begin(timeout=5)
            self.assertEqual(h.phase, Phase.BEGUN)
            h.announce_ready([1, 2], detail="on a port")
            self.assertEqual(h.phase, Phase.SERVING)
            h.stop()
            self.assertIsNone(h.serve())

    def test_a_phase_of_a_newer_library_is_a_number(self):
        with self.handle() as h, mock.patch.object(h._native, "handoff_phase", lambda _: 1000):
            self.assertEqual((h.phase, type(h.phase)), (1000, int))

    def test_in_a_loop_as_well(self):
        async def main():
            h = self.handle()
            await h.wait_for_begin_async(timeout=5)
            await h.announce_ready_async(7)
            asyncio.get_running_loop().call_later(0.01, h.stop)
            await h.serve_async()

        asyncio.run(main())

    def test_the_environment_is_consumed_in_python_too(self):
        for name, value in {"HANDOFF_DATA_DIR": self.data, "LISTEN_PID": "1", "LISTEN_FDS": "1"}.items():
            os.environ[name] = value
        with handoff.Handoff() as h:
            self.assertEqual(h.data_dir, self.data)
        self.assertFalse(set(handoff.VARIABLES) & set(os.environ))
        self.assertNotIn("LISTEN", subprocess.run(["env"], capture_output=True, text=True, check=True).stdout)

    def test_also_when_it_makes_no_sense(self):
        os.environ["LISTEN_FDS"] = "many"
        with self.assertRaisesRegex(handoff.InvalidArgument, "LISTEN_FDS=many is not a number") as raised:
            handoff.Handoff()
        self.assertEqual(raised.exception.code, ErrorCode.EINVAL)
        self.assertIsInstance(raised.exception, ValueError)
        self.assertNotIn("LISTEN_FDS", os.environ)

    def test_a_listener_of_its_own_if_none_was_given(self):
        h = self.handle()
        self.assertEqual(h.listener_names, [])
        with self.assertRaises(handoff.NotGiven) as raised:
            h.listener("http")
        self.assertEqual(raised.exception.function, "handoff_take_listener")
        with h.listener("http", bind=("127.0.0.1", 0)) as listener:
            self.assertIsInstance(listener, handoff.Listener)
            socket.create_connection(listener.getsockname()).close()
        path = os.path.join(self.data, "socket")
        with h.listener("http", bind=path) as listener:
            self.assertEqual((listener.family, listener.getsockname()), (socket.AF_UNIX, path))

    def test_given_ones_have_names(self):
        code = (
            "import handoff, os, sys\n"
            "h = handoff.Handoff()\n"
            "print(h.listener_names, h.listener('b').getsockname() == h.listener(None, 1).getsockname())\n"
            "try: h.listener('c', bind=('127.0.0.1', 0))\n"
            "except handoff.NoName as error: print(error)\n"
        )
        with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
            # sh puts them where the convention wants them, and does not fork.
            script = f'exec 3<&{a.fileno()} 4<&{b.fileno()}; LISTEN_PID=$$ exec {sys.executable} -c "$CODE"'
            environment = {**os.environ, "CODE": code, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b.socket"}
            descriptors = (a.fileno(), b.fileno())
            said = subprocess.run(
                ["bash", "-c", script], env=environment, pass_fds=descriptors, capture_output=True, text=True, check=True
            )
        first, second = said.stdout.splitlines()
        self.assertEqual(first, "['a', 'b.socket'] True")
        self.assertIn("handoff_take_listener: ", second)

    def test_data_that_somebody_else_writes(self):
        self.serving()
        with self.assertRaisesRegex(handoff.Locked, "serves this data already"):
            self.handle().wait_for_begin(timeout=3600)  # not before it is tried again

    def test_a_wait_has_an_end_and_hears_signals(self):
        self.serving()
        with self.assertRaises(TimeoutError) as raised:
            self.handle().wait_for_begin(timeout=0.1)
        self.assertIsInstance(raised.exception, handoff.Pending)
        other = self.handle()
        before = signal.signal(signal.SIGTERM, lambda *_: other.stop())
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with self.assertRaises(handoff.Stopped):
            other.wait_for_begin()

    def test_what_makes_no_sense_is_said(self):
        h = self.handle()
        h.wait_for_begin()
        for revisions in (-1, 2**64, [1, -1], 1.5, "1"):
            with self.assertRaises((TypeError, ValueError)):
                h.announce_ready(revisions)
        for settings in ({"build_id": "x\0y"}, {"control_path": "x\0y"}):
            with self.assertRaises(ValueError):
                self.handle(**settings)
        with self.assertRaisesRegex(handoff.TooBig, "BUILD_ID"):
            self.handle(build_id="x" * 300)
        with self.assertRaises(TypeError):
            h.on_drain("no function")
        with self.assertRaises(handoff.WrongState):
            h.serve()
        with self.assertRaises(handoff.WrongState):
            asyncio.run(h.serve_async())


class Serving(WithData):
    def test_the_fence_is_open_while_the_data_is_ours(self):
        h = self.handle()
        with self.assertRaises(handoff.Sealed), h.writing():
            self.fail("not begun")
        h.wait_for_begin()
        with h.writing(), h.writing():
            pass
        with self.assertRaises(KeyError), h.writing():
            raise KeyError

    def test_signal_handlers_run_while_it_serves(self):
        h, ran = self.serving(), []

        def handler(*_):
            ran.append(len(ran))
            if len(ran) == 3:
                h.stop()
            else:
                threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()

        before = signal.signal(signal.SIGUSR1, handler)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        os.kill(os.getpid(), signal.SIGUSR1)
        h.serve()
        self.assertEqual(ran, [0, 1, 2])

    def test_an_exception_of_a_signal_handler_comes_out(self):
        h = self.serving()

        def handler(*_):
            raise SystemExit(5)

        before = signal.signal(signal.SIGUSR1, handler)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with self.assertRaises(SystemExit):
            h.serve()

    def test_a_loop_of_its_own(self):
        h = self.serving()
        self.assertIsNone(h.next_event())
        self.assertIsNone(h.dispatch())
        h.stop()
        self.assertEqual(h.dispatch(), EventKind.STOPPED)

    def test_news_need_neither_a_hook_nor_an_answer(self):
        h = self.serving()
        news = handoff.Event(h, _native.RawEvent(kind=EventKind.CONNECTIONS, id=7))
        self.assertTrue(news.answered)
        with mock.patch.object(h, "next_event", mock.Mock(side_effect=[news, None] * 3)), self.assertLogs("handoff") as said:
            self.assertIsNone(h.dispatch())
            for hook in (lambda event: None, lambda event: 1 / 0):
                h._set(EventKind.CONNECTIONS, hook)
                self.assertIsNone(h.dispatch())
        self.assertEqual([record.getMessage() for record in said.records], ["the connections failed"])
        drain = handoff.Event(h, _native.RawEvent(kind=EventKind.DRAIN, id=7))
        with self.assertRaises(handoff.Error):
            drain.done()
        self.assertFalse(drain.answered)

    def test_what_was_given_is_lost_when_the_process_is_parked_or_resumes_after_the_commit(self):
        h = self.serving()
        closed = []
        for number, (kind, flags, expected) in enumerate(
            [
                (EventKind.RESUME, 0, []),
                (EventKind.RESUME, _native.EventFlag.AFTER_COMMIT, [1]),
                (EventKind.CONFIRMED, 0, []),
                (EventKind.PARKED, 0, [2, 3]),
                (EventKind.RESUME, _native.EventFlag.AFTER_COMMIT, []),
            ]
        ):
            if number < 4:
                drain = handoff.Event(h, _native.RawEvent(kind=EventKind.DRAIN, id=7))
                drain._when_lost(lambda number=number: closed.append(number))
            event = handoff.Event(h, _native.RawEvent(kind=kind, id=8, flags=flags))
            self.assertEqual(event.after_commit, flags != 0)
            h._lose(event)
            self.assertEqual(closed, expected, (number, kind))
            closed.clear()

    def test_a_forked_child_is_told_that_it_is_one(self):
        h = self.serving()
        child = os.fork()
        if child == 0:
            wrong = 0
            for call in (h.stop, h.fileno, h.dispatch, lambda: h.phase, lambda: h.writing().__enter__()):
                try:
                    call()
                except handoff.Forked:
                    continue
                wrong += 1
            h.close()
            os._exit(wrong)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(h.phase, Phase.SERVING)

    def test_a_closed_handle_is_an_error_and_no_crash(self):
        h = self.serving()
        h.close()
        h.close()
        h.stop()
        for call in (h.warmed, h.dispatch, h.fileno, lambda: h.phase, lambda: h.writing().__enter__()):
            with self.assertRaisesRegex(handoff.InvalidArgument, "closed"):
                call()
        self.serving()  # the lock is free

    def test_two_threads_can_not_own_it_at_once(self):
        h, codes = self.serving(), set()

        def call():
            for _ in range(2000):
                try:
                    h.warmed()
                except handoff.Error as error:
                    codes.add(error.code)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLessEqual(codes, {ErrorCode.EBUSY, ErrorCode.ESTATE})


class Library(unittest.TestCase):
    def load(self, **environment):
        code = "import handoff; print(handoff.library_path, handoff.library_version)"
        environment = {**os.environ, **environment}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    def test_it_is_where_it_was_said_to_be(self):
        said = self.load(LIBHANDOFF=handoff.library_path)
        self.assertEqual(said.stdout.split(), [handoff.library_path, handoff.library_version])

    def test_what_can_not_be_loaded_is_said_with_what_to_do(self):
        said = self.load(LIBHANDOFF="/nowhere/libhandoff.so").stderr
        self.assertIn(
            "ImportError: no libhandoff could be loaded. Tried:\n  /nowhere/libhandoff.so, from LIBHANDOFF: ", said
        )
        self.assertIn("set LIBHANDOFF", said)

    def test_another_abi_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            source, library = Path(directory, "other.c"), Path(directory, "libother.so")
            source.write_text("unsigned handoff_abi(void) { return 99; }")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
            said = self.load(LIBHANDOFF=str(library)).stderr
            self.assertRegex(said, "ImportError: .*libother.so has ABI 99, this package is made for ABI 1")
            source.write_text("unsigned handoff_abi(void) { return 1; }")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
            self.assertRegex(self.load(LIBHANDOFF=str(library)).stderr, "ImportError: .*\n.*undefined symbol: handoff_")


if __name__ == "__main__":
    unittest.main()
