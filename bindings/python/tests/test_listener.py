"""A listener that is shared is changed for nobody, and can be waited for and closed as any other."""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import threading
import unittest
from pathlib import Path

import handoff


def is_blocking(descriptor):
    return not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK


def backlog(listener):
    """tcp_info.tcpi_sacked of a listening socket."""
    return struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]


class WithSupervisor(unittest.TestCase):
    """The supervisor has a listener of its own, and gives away duplicates."""

    def setUp(self):
        self.supervisor = socket.socket()
        self.supervisor.bind(("127.0.0.1", 0))
        self.supervisor.listen(500)
        self.supervisor.setblocking(False)
        self.addCleanup(self.supervisor.close)

    def given(self):
        listener = handoff.Listener(fileno=os.dup(self.supervisor.fileno()))
        self.addCleanup(listener.close)
        return listener

    def connect(self):
        client = socket.create_connection(self.supervisor.getsockname())
        self.addCleanup(client.close)
        return client


class Shared(WithSupervisor):
    """handoff.Listener"""

    def test_it_is_described_as_it_is(self):
        listener = self.given()
        self.assertEqual((listener.family, listener.type, listener.proto), (socket.AF_INET, socket.SOCK_STREAM, 6))
        self.assertEqual(listener.getsockname(), self.supervisor.getsockname())
        self.assertIsInstance(listener, socket.socket)

    def test_nothing_changes_the_description(self):
        for blocking in (False, True):
            os.set_blocking(self.supervisor.fileno(), blocking)
            for default in (None, 3.0):
                socket.setdefaulttimeout(default)
                try:
                    listener = self.given()
                    self.assertEqual(is_blocking(self.supervisor), blocking)
                finally:
                    socket.setdefaulttimeout(None)
                for change in (None, 0, 2.5, 0.0):
                    listener.settimeout(change)
                    self.assertEqual((listener.gettimeout(), listener.timeout), (change, change))
                for change in (True, False):
                    listener.setblocking(change)
                    self.assertEqual((listener.getblocking(), is_blocking(self.supervisor)), (change, blocking))
                with listener.dup() as other:
                    self.assertEqual((type(other), other.gettimeout()), (handoff.Listener, 0.0))
                self.assertEqual(is_blocking(self.supervisor), blocking)

    def test_the_backlog_stays(self):
        before = backlog(self.supervisor)
        listener = self.given()
        listener.listen(1)
        listener.listen()
        self.assertEqual((backlog(self.supervisor), before), (500, 500))

    def test_shutdown_would_be_for_all(self):
        with self.assertRaises(PermissionError):
            self.given().shutdown(socket.SHUT_RDWR)
        self.connect()

    def test_accept_waits_for_a_connection_and_gives_a_blocking_one(self):
        listener, accepted = self.given(), []
        waits = threading.Thread(target=lambda: accepted.append(listener.accept()))
        waits.start()
        client = self.connect()
        waits.join()
        connection, address = accepted[0]
        with connection:
            self.assertEqual(address, client.getsockname())
            self.assertEqual((connection.gettimeout(), is_blocking(connection)), (None, True))
            self.assertIs(type(connection), socket.socket)
            client.sendall(b"x")
            self.assertEqual(connection.recv(1), b"x")

    def test_accept_heeds_its_timeout(self):
        listener = self.given()
        listener.settimeout(0.01)
        with self.assertRaises(socket.timeout):
            listener.accept()
        listener.settimeout(0)
        with self.assertRaises(BlockingIOError):
            listener.accept()
        with self.assertRaises(ValueError):
            listener.settimeout(-1)

    def test_while_somebody_is_inside_the_number_is_not_free(self):
        listener, entered, go_on = self.given(), threading.Event(), threading.Event()
        wait, number = listener._wait, listener.fileno()

        def slow_wait(until):
            entered.set()
            go_on.wait()
            wait(until)

        listener._wait = slow_wait
        thread = threading.Thread(target=list, args=(listener,))
        thread.start()
        entered.wait()
        listener.close()
        os.fstat(number)
        go_on.set()
        thread.join()
        with self.assertRaises(OSError):
            os.fstat(number)

    def test_close_wakes_all_that_wait(self):
        for _ in range(50):
            listener, errors, started = self.given(), [], threading.Barrier(4)

            def wait(listener=listener, errors=errors, started=started):
                started.wait()
                try:
                    listener.accept()
                except OSError as error:
                    errors.append(error.errno)

            threads = [threading.Thread(target=wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            started.wait()
            listener.close()
            for thread in threads:
                thread.join()
            self.assertEqual((errors, listener.fileno()), ([errno.EBADF] * 3, -1))
        self.connect()  # the others' is open

    def test_a_loop_over_it_ends_with_close(self):
        listener, seen = self.given(), []

        def serve():
            for connection, address in listener:
                connection.close()
                seen.append(address)

        thread = threading.Thread(target=serve)
        thread.start()
        client = self.connect()
        self.assertEqual(client.recv(1), b"")
        listener.close()
        thread.join()
        self.assertEqual(seen, [client.getsockname()])
        self.assertEqual(list(listener), [])

    def test_a_loop_over_what_does_not_listen_is_an_error(self):
        listener = handoff.Listener(fileno=socket.socket().detach())
        with self.assertRaises(OSError):
            next(iter(listener))
        listener.close()

    def test_datagrams_do_not_wait(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(("127.0.0.1", 0))
            own.setblocking(False)
            with handoff.Listener(fileno=os.dup(own.fileno())) as given:
                self.assertEqual((given.gettimeout(), given.type), (0.0, socket.SOCK_DGRAM))
                with self.assertRaises(BlockingIOError):
                    given.recvfrom(1)
                with self.assertRaises(ValueError):
                    given.setblocking(True)
                given.setblocking(False)

    def test_one_of_its_own(self):
        for address in [("127.0.0.1", 0), ("::1", 0)]:
            with handoff.Listener.bind_to(address) as listener:
                most = int(Path("/proc/sys/net/core/somaxconn").read_text())
                self.assertEqual(backlog(listener), min(4096, most))
                self.assertFalse(is_blocking(listener))
                client = socket.create_connection(listener.getsockname()[:2])
                listener.accept()[0].close()
                client.close()


class Streams(WithSupervisor):
    """handoff.StreamServer"""

    def test_every_connection_that_was_accepted_is_served(self):
        served = 0

        async def serve(reader, writer):
            nonlocal served
            writer.write(await reader.readline())
            await writer.drain()
            served += 1

        async def main():
            nonlocal served
            for _ in range(20):
                served = 0
                server = handoff.StreamServer(self.given(), serve)
                clients = [self.connect() for _ in range(10)]
                for client in clients:
                    client.sendall(b"hello\n")
                while not server.tasks:
                    await asyncio.sleep(0)
                server.close()
                accepted = len(server.tasks)
                await server.wait_closed()
                self.assertEqual((served, server.tasks), (accepted, set()))
                for _ in range(accepted):  # in the order of their connects
                    self.assertEqual(clients.pop(0).recv(10), b"hello\n")
                server = handoff.StreamServer(self.given(), serve)  # the rest is for whoever serves next
                while served < 10:
                    await asyncio.sleep(0.001)
                server.close()
                await server.wait_closed()

        asyncio.run(main())

    def test_waiting_has_an_end(self):
        async def serve(reader, writer):
            await reader.read()

        async def main():
            server = handoff.StreamServer(self.given(), serve)
            client = self.connect()
            while not server.tasks:
                await asyncio.sleep(0)
            server.close()
            server.close()
            await server.wait_closed(0.01)
            self.assertEqual(len(server.tasks), 1)
            client.close()
            await server.wait_closed()
            self.assertEqual(server.tasks, set())

        asyncio.run(main())

    def test_a_server_of_asyncio_leaves_the_listener_as_it_is(self):
        async def main():
            server = await asyncio.start_server(lambda _, writer: writer.close(), sock=self.given())
            client = self.connect()
            await asyncio.get_running_loop().run_in_executor(None, client.recv, 1)
            server.close()
            self.assertEqual((backlog(self.supervisor), is_blocking(self.supervisor)), (500, False))

        asyncio.run(main())


if __name__ == "__main__":
    unittest.main()
