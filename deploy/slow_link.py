#!/usr/bin/env python3
"""A slow link for drills and tests: a TCP proxy on loopback that passes so many bytes a second, and nothing else.

    deploy/slow_link.py --listen 127.0.0.1:7181 --to 127.0.0.1:7081 --megabytes-per-second 2

A worker behind it is started with `--transport tcp --data-listen 127.0.0.1:7081 --advertise 127.0.0.1:7181`: then others take its
K/V pages through the proxy. The rate is of all connections together, each way, in pieces of a few milliseconds. --cut-after BYTES
ends each connection when it has carried so much towards its client. Until Ctrl-C; standard library.
"""
import argparse
import asyncio
import signal
import time

PIECE_SECONDS = 0.005  # what may pass at once: short enough that no page of 26 KiB and more slips through whole
READ_BYTES = 64 * 1024


class Throttle:
    """Lets bytes pass at a rate: each piece waits until those before it have had their time."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second, self.free_at = bytes_per_second, 0.0

    async def wait(self, size):
        now = time.monotonic()
        self.free_at = max(self.free_at, now - PIECE_SECONDS) + size / self.bytes_per_second
        if self.free_at > now:
            await asyncio.sleep(self.free_at - now)


async def pump(reader, writer, throttle, bytes_max=None):
    carried = 0
    try:
        while data := await reader.read(min(READ_BYTES, max(1, int(throttle.bytes_per_second * PIECE_SECONDS)))):
            await throttle.wait(len(data))
            carried += len(data)
            if bytes_max is not None and carried > bytes_max:
                break
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


def parse_address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not HOST:PORT")
    return host.strip("[]"), int(port)


def positive(text):
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no rate between 0 and 1e6")
    return value


async def serve(listen, to, megabytes_per_second, cut_after=None, on_listening=print):
    down, up = Throttle(megabytes_per_second * 1e6), Throttle(megabytes_per_second * 1e6)

    async def accept(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*to)
        except OSError:
            writer.close()
            return
        # Either way's end is the connection's end: nobody behind a proxy shall wait for a peer that has gone.
        ways = [asyncio.ensure_future(pump(reader, far_writer, up)),
                asyncio.ensure_future(pump(far_reader, writer, down, cut_after))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            end.close()

    # A small buffer, or the kernel would take megabytes at full speed before anybody waits.
    server = await asyncio.start_server(accept, *listen, limit=READ_BYTES)
    on_listening(f"slow link: {listen[0]}:{server.sockets[0].getsockname()[1]} leads to {to[0]}:{to[1]} "
                 f"at {megabytes_per_second:g} MB/s")
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=parse_address, required=True, help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--to", type=parse_address, required=True, help="HOST:PORT of the worker's --data-listen")
    parser.add_argument("--megabytes-per-second", type=positive, required=True)
    parser.add_argument("--cut-after", type=int, help="bytes towards the client, after which a connection ends")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(serve(options.listen, options.to, options.megabytes_per_second, options.cut_after,
                          lambda text: print(text, flush=True)))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        raise SystemExit(f"slow_link.py: {error}") from None


if __name__ == "__main__":
    main()
