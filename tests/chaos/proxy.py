"""A TCP proxy that does to connections what networks and dying peers do: delays, cuts, stalls, black holes, flipped bytes, writes
split and merged; and, where it knows the format (frames.py), whole control frames and K/V pages dropped, doubled, swapped.

One thread with an event loop for all links; `Link` is used from any thread. Everything a link decides comes from its own
random numbers, which the seed of the run gives.
"""

import asyncio
import contextlib
import random
import socket
import threading

CHUNK = 256 << 10
HELD_BYTES_MAX = 8 << 20  # of a direction that does not forward: then the proxy stops reading, as a full network does


class Proxy:
    """The event loop that all links share."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)
        self.thread.start()
        self.links = []

    def link(self, name, port, splitter=None, seed=0):
        """A link to 127.0.0.1:port. splitter: makes one object per connection and direction that cuts bytes into units."""
        link = Link(self, name, port, splitter, random.Random(f"{seed} {name}"))
        self.call(link.listen())
        self.links.append(link)
        return link

    def call(self, coroutine, seconds=10):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def stop(self):
        for link in self.links:
            self.call(link.shut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Fault:
    """What a link does now. Durations in seconds; `up`: from the end that connects to the one that is called."""

    def __init__(self, **values):
        self.delay = values.pop("delay", 0)  # of each chunk, with up to half as much jitter
        self.stopped = values.pop("stopped", ())  # directions that read nothing more: "up", "down"
        self.black_hole = values.pop("black_hole", ())  # directions whose bytes are taken and thrown away; nothing is closed
        self.flips = values.pop("flips", 0)  # bytes to flip, one in each of so many chunks downwards
        self.pieces = values.pop("pieces", 0)  # writes of 1 to so many bytes, then a pause
        self.merge = values.pop("merge", 0)  # seconds that writes are collected for
        self.units = values.pop("units", {})  # {"drop"|"double"|"swap"|"foreign"|"flip": how many}
        self.unit_way = values.pop("unit_way", "down")
        assert not values, values


class Link:
    def __init__(self, proxy, name, target_port, splitter, rng):
        self.proxy, self.name, self.target_port, self.splitter, self.rng = proxy, name, target_port, splitter, rng
        self.fault = Fault()
        self.connections = set()
        self.server = None
        self.port = None
        self.changed = None
        self.damaged = []  # what was done to units and bytes, for the timeline and the checks
        self.kept_unit = None  # of an earlier connection
        self.bytes = 0

    async def listen(self):
        self.changed = asyncio.Event()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = self.server.sockets[0].getsockname()[1]

    async def shut(self):
        self.server.close()
        await self._cut()

    # From any thread.
    def set(self, fault):
        self.fault = fault

        def wake():
            self.changed.set()
            self.changed = asyncio.Event()

        self.proxy.loop.call_soon_threadsafe(wake)

    def heal(self):
        self.set(Fault())

    def cut(self):
        """Every connection of now is reset."""
        self.proxy.call(self._cut())

    def take_damage(self):
        taken, self.damaged = self.damaged, []
        return taken

    async def _cut(self):
        for writer in list(self.connections):
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

    async def _serve(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self.connections |= pair
        try:
            for each in pair:
                each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                each.transport.set_write_buffer_limits(high=CHUNK)
            await asyncio.gather(self._pump("up", reader, far_writer), self._pump("down", far_reader, writer))
        finally:
            self.connections -= pair
            for each in pair:
                each.transport.abort()

    async def _pump(self, way, reader, writer):
        """Until either end closes: then both do."""
        pump = Pump(self, way, writer)
        try:
            while True:
                await self._while(lambda: way in self.fault.stopped)
                data = await reader.read(CHUNK)
                if not data:
                    break
                if way in self.fault.black_hole:
                    pump.lost = True
                    continue
                if pump.lost:  # what follows a hole makes no sense to anybody: such a connection ends
                    break
                self.bytes += len(data)
                await pump.forward(data)
            await pump.flush()
        except (OSError, asyncio.IncompleteReadError):
            pass
        if writer.can_write_eof() and not pump.lost:
            with contextlib.suppress(OSError):
                writer.write_eof()
                return
        writer.transport.abort()

    async def _while(self, condition):
        while condition():
            await self.changed.wait()


class Pump:
    """One direction of one connection."""

    def __init__(self, link, way, writer):
        self.link, self.way, self.writer = link, way, writer
        self.units = link.splitter(way) if link.splitter else None
        self.held = None  # a unit that goes behind the next one
        self.lost = False

    async def forward(self, data):
        fault = self.link.fault
        if fault.delay:
            await asyncio.sleep(fault.delay * (1 + self.link.rng.random() / 2))
        if fault.flips and self.way == "down" and len(data) > 1024:
            data = self._flip(data)
        if self.units is None:
            return await self._write(data)
        for kind, unit in self.units.feed(data):
            await self._write_unit(kind, unit)

    def _flip(self, data):
        self.link.fault.flips -= 1
        place = self.link.rng.randrange(len(data))
        changed = bytearray(data)
        changed[place] ^= 1 << self.link.rng.randrange(8)
        self.link.damaged.append(f"flipped a bit of {len(data)} bytes")
        return bytes(changed)

    async def _write_unit(self, kind, unit):
        wanted = self.link.fault.units
        what = None
        if self.way == self.link.fault.unit_way and kind and wanted:
            what = next((name for name, left in wanted.items() if left > 0), None)
        if self.held is not None:
            await self._write(unit)
            unit, self.held = self.held, None
            return await self._write(unit)
        if kind and kind != "heartbeat" and what:  # heartbeats are no test of the protocol, and there are many
            unit = self._damage(what, kind, unit)
        if kind and self.link.kept_unit is None and kind == "page":
            self.link.kept_unit = unit
        if unit:
            await self._write(unit)

    def _damage(self, what, kind, unit):
        if what == "foreign" and self.link.kept_unit is None:
            return unit
        self.link.fault.units[what] -= 1
        self.link.damaged.append(f"{what} {kind}")
        if what == "drop":
            return b""
        if what == "double":
            return unit + unit
        if what == "swap":
            self.held = unit
            return b""
        if what == "foreign":
            return self.link.kept_unit
        place = len(unit) // 2 + self.link.rng.randrange(len(unit) // 2)
        changed = bytearray(unit)
        changed[place] ^= 1 << self.link.rng.randrange(8)
        return bytes(changed)

    async def _write(self, data):
        fault = self.link.fault
        if fault.pieces and len(data) < 64 << 10:
            at = 0
            while at < len(data):
                size = self.link.rng.randint(1, fault.pieces)
                self.writer.write(data[at:at + size])
                await self.writer.drain()
                await asyncio.sleep(0)
                at += size
            return
        self.writer.write(data)
        if fault.merge:
            await asyncio.sleep(fault.merge)
        await self.writer.drain()

    async def flush(self):
        if self.held is not None:
            held, self.held = self.held, None
            await self._write(held)
