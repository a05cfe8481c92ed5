"""handoff.StreamServer: its connections move, and come back."""

import asyncio
import math
import os
import socket
import unittest

import handoff
from test_listener import WithSupervisor


class Drain:
    """An event that keeps what it is given, as the library does: duplicates."""

    def __init__(self, remaining=math.inf):
        self.remaining = remaining
        self.given = []

    def put_connection(self, connection, name, state):
        self.given.append((name, bytes(state), os.dup(connection.fileno())))

    def taken(self):
        """As Handoff.connections() in the successor."""
        for name, state, number in self.given:
            yield handoff.Connection(name, state, socket.socket(fileno=number))
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
        self.name, self.patience, self.served, self.ended = name, patience, 0, 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, reader, writer):
        try:
            while line := await self.request(reader):
                await self.go_on.wait()
                self.served += 1
                writer.write(self.name + b" " + line.upper())
                await writer.drain()
        finally:
            self.ended += 1

    async def request(self, reader):
        try:
            async with reader.idle():
                return await asyncio.wait_for(reader.readline(), self.patience)
        except asyncio.TimeoutError:
            return None


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
            self.assertEqual(sorted(given[:2] for given in drain.given), [("client", state) for state in [b"", b"", b"ha", b"ha"]])
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
