"""handoff.StreamServer: its connections move, and come back."""

import asyncio
import ctypes
import gc
import math
import mmap
import os
import socket
import unittest
import warnings

import handoff
from handoff import _payload

from test_listener import WithSupervisor


class Drain:
    """An event that keeps what it is given, as the library does: duplicates."""

    def __init__(self, remaining=math.inf):
        self.remaining = remaining
        self.given = []
        self.lose = None

    def _when_lost(self, close):
        self.lose = close

    def put_connection(self, connection, name, state):
        self.given.append((name, bytes(state), os.dup(connection.fileno())))

    def taken(self):
        """As Handoff.connections() in the successor."""
        for name, state, number in self.given:
            yield handoff.Connection(name, state, number)
        self.given = []

    def forget(self):
        for _, _, number in self.given:
            os.close(number)


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


class Upper:
    """Answers a line in upper case, with its own name before."""

    def __init__(self, name, patience=None):
        self.name, self.patience = name, patience
        self.asked = self.served = self.ended = 0
        self.go_on, self.leave = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.leave.set()
        self.read = 0

    async def __call__(self, reader, writer):
        try:
            while line := await self.request(reader):
                self.asked += 1
                await asyncio.sleep(0)  # as for a disk
                await self.go_on.wait()
                self.served += 1
                writer.write(self.name + b" " + line.upper())
                await writer.drain()
        finally:
            self.ended += 1

    async def request(self, reader):
        try:
            async with reader.idle():
                line = await asyncio.wait_for(reader.readline(), self.patience)
                self.read += 1
                await self.leave.wait()
                return line
        except asyncio.TimeoutError:
            return None


class Long:
    """Says more than fits into the socket, and does not wait until it is out; once, or as often as it is asked."""

    BYTES = 8 * 2**20

    def __init__(self, once=False):
        self.once, self.written = once, False

    async def __call__(self, reader, writer):
        while True:
            async with reader.idle():
                if not await reader.readline():
                    return
            writer.write(b"x" * self.BYTES)
            self.written = True
            if self.once:
                return


class Moves(WithSupervisor):
    def serve(self, handler, **settings):
        return handoff.StreamServer(self.given(), handler, **settings)

    async def connected(self, server, count=1):
        """Clients that were accepted."""
        loop, clients, before = asyncio.get_running_loop(), [], len(server.tasks)
        for _ in range(count):
            clients.append(self.connect())
            clients[-1].setblocking(False)
        await until(lambda: len(server.tasks) == before + count)
        self.say = loop.sock_sendall
        self.heard = lambda client: asyncio.wait_for(loop.sock_recv(client, 2**20), 30)
        return clients

    def test_the_successor_goes_on_with_every_byte(self):
        async def main():
            server = self.serve(Upper(b"o"))
            quiet, asked, half, many = clients = await self.connected(server, 4)
            await self.say(asked, b"x\n")
            self.assertEqual(await self.heard(asked), b"o X\n")
            await self.say(half, b"ha")
            await self.say(many, b"y\nz\nha")
            self.assertEqual(await self.heard(many), b"o Y\no Z\n")
            drain = Drain()
            await server.move(drain, "client")
            self.assertEqual(
                sorted(given[:2] for given in drain.given), [("client", state) for state in [b"", b"", b"ha", b"ha"]]
            )
            await self.say(half, b"lf\n")
            await turns()
            successor = self.serve(Upper(b"n"))
            for connection in drain.taken():
                successor.take(connection)
            self.assertEqual(await self.heard(half), b"n HALF\n")
            for client in (quiet, asked, many):
                await self.say(client, b"!\n")
                self.assertEqual(await self.heard(client), b"n HA!\n" if client is many else b"n !\n")
            self.assertEqual(server._serve.served, 3)  # all of it before
            for client in clients:
                client.close()
            successor.close()
            await successor.wait_closed()

        asyncio.run(main())

    def test_the_incumbent_goes_on_after_a_rollback(self):
        async def main():
            upper = Upper(b"o")
            server = self.serve(upper)
            for _ in range(3):
                quiet, half = clients = await self.connected(server, 2)
                await self.say(half, b"ha")
                await turns()
                drain = Drain()
                await server.move(drain, "client")
                self.assertIn(("client", b"ha"), [given[:2] for given in drain.given])
                for client in clients:
                    await self.say(client, b"lf\n")
                await turns()
                before = upper.served
                drain.forget()
                server.resume(self.given())
                self.assertEqual([await self.heard(client) for client in clients], [b"o LF\n", b"o HALF\n"])
                self.assertEqual((upper.served, upper.ended), (before + 2, 0))
                late = await self.connected(server)
                await self.say(late[0], b"late\n")
                self.assertEqual(await self.heard(late[0]), b"o LATE\n")
                upper.served = 0
            server.close()
            for task in tuple(server.tasks):
                task.cancel()
            await server.wait_closed()

        asyncio.run(main())

    def test_a_request_that_has_begun_is_answered_first(self):
        async def main():
            upper = Upper(b"o")
            server = self.serve(upper)
            busy, quiet = await self.connected(server, 2)
            upper.go_on.clear()
            await self.say(busy, b"x\ny\nz")
            await until(lambda: upper.asked == 1)
            drain = Drain()
            moving = asyncio.ensure_future(server.move(drain, "client"))
            await asyncio.sleep(0.05)
            self.assertEqual((moving.done(), drain.given), (False, []))
            upper.go_on.set()
            await moving
            self.assertEqual(await self.heard(busy), b"o X\n")
            self.assertEqual(sorted(state for _, state, _ in drain.given), [b"", b"y\nz"])
            drain.forget()

        asyncio.run(main())

    def test_a_request_that_is_out_of_the_reader_has_begun(self):
        async def main():
            upper = Upper(b"o")
            server = self.serve(upper)
            (client,) = await self.connected(server)
            upper.leave.clear()
            await self.say(client, b"x\n")
            await until(lambda: upper.read == 1)
            drain = Drain()
            moving = asyncio.ensure_future(server.move(drain, "client"))
            await asyncio.sleep(0.05)
            self.assertFalse(moving.done())
            upper.leave.set()
            await moving
            self.assertEqual(await self.heard(client), b"o X\n")
            self.assertEqual([given[:2] for given in drain.given], [("client", b"")])
            drain.forget()

        asyncio.run(main())

    def test_a_handler_that_takes_too_long_fails_the_drain(self):
        async def main():
            upper = Upper(b"o")
            server = self.serve(upper)
            (client,) = await self.connected(server)
            upper.go_on.clear()
            await self.say(client, b"x\n")
            await until(lambda: upper.asked == 1)
            with self.assertRaisesRegex(TimeoutError, "1 connections are in a request"):
                await server.move(Drain(remaining=0.1), "client")
            server.resume(self.given())
            upper.go_on.set()
            self.assertEqual(await self.heard(client), b"o X\n")

        asyncio.run(main())

    def test_one_that_is_nowhere_idle_is_waited_for(self):
        async def serve(reader, writer):
            writer.write(await reader.readline())

        async def main():
            server = self.serve(serve)
            (client,) = await self.connected(server)
            drain = Drain()
            moving = asyncio.ensure_future(server.move(drain, "client"))
            await asyncio.sleep(0.05)
            self.assertFalse(moving.done())
            await self.say(client, b"x\n")
            self.assertEqual(await self.heard(client), b"x\n")
            await moving
            self.assertEqual(drain.given, [])

        asyncio.run(main())

    def test_requests_that_do_not_fit_are_answered_and_the_rest_moves(self):
        async def main():
            server = self.serve(Upper(b"o"))
            (client,) = await self.connected(server)
            lines, line = 300, b"x" * 999 + b"\n"
            sending = asyncio.ensure_future(self.say(client, line * lines))
            await until(lambda: server._serve.served)
            drain = Drain()
            await server.move(drain, "client")
            ((_, state, _),) = drain.given
            self.assertTrue(0 < len(state) <= 60 * 1024, len(state))
            successor = self.serve(Upper(b"n"))
            for connection in drain.taken():
                successor.take(connection)
            got = b""
            while len(got) < (len(line) + 2) * lines:
                got += await self.heard(client)
            await sending
            ours, theirs = server._serve.served, successor._serve.served
            self.assertEqual(got, (b"o " + line.upper()) * ours + (b"n " + line.upper()) * theirs)
            self.assertTrue(0 < ours < lines == ours + theirs, ours)

        asyncio.run(main())

    def test_a_reply_that_is_not_read_is_waited_for(self):
        async def main():
            server = self.serve(Long())
            (client,) = await self.connected(server)
            await self.say(client, b"x\n")
            await until(lambda: server._serve.written)
            drain = Drain(remaining=0.1)
            with self.assertRaisesRegex(TimeoutError, "a client does not read its reply"):
                await server.move(drain, "client")
            server.resume(self.given())
            drain = Drain()
            moving = asyncio.ensure_future(server.move(drain, "client"))
            await asyncio.sleep(0.05)
            self.assertEqual((moving.done(), drain.given), (False, []))
            got = 0
            while got < Long.BYTES:
                got += len(await self.heard(client))
            await moving
            self.assertEqual(len(drain.given), 1)
            drain.forget()

        asyncio.run(main())

    def test_the_last_reply_is_waited_for(self):
        async def main():
            server = self.serve(Long(once=True))
            (client,) = await self.connected(server)
            await self.say(client, b"x\n")
            await until(lambda: server._serve.written)
            server.close()
            await server.wait_closed(0.05)
            self.assertEqual(len(server.tasks), 1)
            closing = asyncio.ensure_future(server.wait_closed())
            got = 0
            while part := await self.heard(client):
                got += len(part)
            await closing
            self.assertEqual(got, Long.BYTES)

        asyncio.run(main())

    def test_a_handler_that_is_woken_does_not_touch_what_is_moved(self):
        async def main():
            server = self.serve(Upper(b"o", patience=0.05))
            clients = await self.connected(server, 2)
            await turns()
            drain = Drain()
            await server.move(drain, "client")
            await asyncio.sleep(0.2)
            self.assertEqual((len(drain.given), server._serve.ended), (2, 0))
            drain.forget()
            server.resume(self.given())
            self.assertEqual([await self.heard(client) for client in clients], [b"", b""])
            self.assertEqual(server._serve.ended, 2)

        asyncio.run(main())

    def test_what_a_successor_has_had_is_closed_and_not_served(self):
        async def main():
            upper = Upper(b"o")
            server = self.serve(upper)
            many, half, gone = clients = await self.connected(server, 3)
            upper.go_on.clear()
            await self.say(many, b"x\ny\nz")
            await self.say(half, b"ha")
            await until(lambda: upper.asked == 1)
            drain = Drain()
            moving = asyncio.ensure_future(server.move(drain, "client"))
            await turns()
            upper.go_on.set()
            await moving
            self.assertEqual(sorted(state for _, state, _ in drain.given), [b"", b"ha", b"y\nz"])
            self.assertEqual(await self.heard(many), b"o X\n")
            drain.forget()
            drain.lose()  # as when it is parked
            self.assertEqual([await self.heard(client) for client in clients], [b""] * 3)
            self.assertEqual((upper.served, upper.ended), (1, 0), "they stay where they are until it goes on")
            server.resume(self.given())
            await server.wait_closed()
            self.assertEqual((upper.served, upper.ended), (1, 3))
            (late,) = await self.connected(server)
            await self.say(late, b"late\n")
            self.assertEqual(await self.heard(late), b"o LATE\n")

        asyncio.run(main())

    def test_it_can_be_ended_while_it_is_moved(self):
        async def main():
            server = self.serve(Upper(b"o"))
            clients = await self.connected(server, 2)
            await self.say(clients[0], b"x\n")
            await self.heard(clients[0])
            drain = Drain()
            await server.move(drain, "client")
            for task in tuple(server.tasks):
                task.cancel()
            await server.wait_closed()
            drain.forget()
            self.assertEqual([await self.heard(client) for client in clients], [b"", b""])

        asyncio.run(main())

    def test_a_resume_without_a_drain_changes_nothing(self):
        async def main():
            server = self.serve(Upper(b"o"))
            listener = self.given()
            server.resume(listener)
            self.assertEqual(listener.fileno(), -1)
            (client,) = await self.connected(server)
            await self.say(client, b"x\n")
            self.assertEqual(await self.heard(client), b"o X\n")

        asyncio.run(main())


class Payload(unittest.TestCase):
    """What is given and taken, without a library."""

    def test_any_bytes_are_given_without_a_copy(self):
        array = bytearray(b"some bytes")
        with mmap.mmap(-1, 4096) as writable, _payload.memory(writable) as (address, size):
            self.assertEqual(size, 4096)
            writable[:4] = b"more"
            self.assertEqual(ctypes.string_at(address, 4), b"more")
        with open(__file__, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for data in (b"some bytes", b"", array, memoryview(array)[2:5], mapped, memoryview(mapped)):
                with _payload.memory(data) as (address, size):
                    self.assertEqual(ctypes.string_at(address, size), bytes(data))
            data.release()
        with _payload.memory(array), self.assertRaises(BufferError):
            array.append(0)  # C looks at it
        array.append(0)
        for data, error in (("text", TypeError), (None, TypeError), (memoryview(array)[::2], BufferError)):
            with self.assertRaises(error), _payload.memory(data):
                self.fail("no bytes")

    def test_a_connection_is_owned_once(self):
        ours, theirs = socket.socketpair()
        with ours:
            theirs.setblocking(False)
            connection = handoff.Connection("client", b"state", theirs.detach())
            number = connection.fileno()
            with connection.socket() as taken:
                self.assertEqual((taken.fileno(), taken.family, taken.gettimeout()), (number, socket.AF_UNIX, None))
                self.assertTrue(os.get_blocking(number))
            for call in (connection.detach, connection.socket):
                with self.assertRaises(ValueError):
                    call()
            connection.close()
            self.assertEqual((connection.fileno(), ours.recv(1)), (-1, b""))

    def test_one_that_is_no_socket_is_a_descriptor(self):
        read, write = os.pipe()
        connection = handoff.Connection("pipe", b"", write)
        with self.assertRaises(OSError):
            connection.socket()
        os.close(connection.detach())
        self.assertEqual(os.read(read, 1), b"")
        os.close(read)

    def test_one_that_is_forgotten_is_closed_and_it_is_said(self):
        ours, theirs = socket.socketpair()
        with ours, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            handoff.Connection("client", b"", theirs.detach())
            gc.collect()
            self.assertEqual([warning.category for warning in said], [ResourceWarning])
            self.assertEqual(ours.recv(1), b"")

    def test_what_has_no_descriptor_is_an_error(self):
        closed = socket.socket()
        closed.close()
        for file, error in ((-1, ValueError), (2**31, ValueError), (closed, ValueError), ("file", AttributeError)):
            with self.assertRaises(error):
                _payload.descriptor_of(file)


if __name__ == "__main__":
    unittest.main()
