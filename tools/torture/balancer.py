"""A load balancer as simple as they come: TCP, each connection to the next service that can be reached.

`python -m tools.torture.balancer`, on the clients' host. Knows no HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
from collections.abc import Sequence

CONNECT_SECONDS = 1.0
_CHUNK = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Balancer:
    """`backends` are `HOST:PORT`."""

    def __init__(self, backends: Sequence[str]) -> None:
        self._backends = [(host, int(port)) for host, _, port in (one.partition(":") for one in backends)]
        self._turns = itertools.cycle(range(len(self._backends)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side closes it."""
        backend = await self._connect()
        if backend is not None:
            both = {
                asyncio.create_task(_carry(reader, backend[1])),
                asyncio.create_task(_carry(backend[0], writer)),
            }
            _, rest = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.wait(both)
            backend[1].close()
        writer.close()

    async def _connect(self) -> Streams | None:
        first = next(self._turns)
        for number in range(len(self._backends)):
            host, port = self._backends[(first + number) % len(self._backends)]
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(host, port)
        return None


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


async def balance(port: int, backends: Sequence[str]) -> None:
    """Until the process ends."""
    server = await asyncio.start_server(Balancer(backends).serve, "0.0.0.0", port)  # noqa: S104 - a host of its own
    sys.stdout.write('{"serves": "balancer"}\n')
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Shares TCP connections out among backends.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("backends", nargs="+")
    arguments = parser.parse_args()
    asyncio.run(balance(arguments.port, arguments.backends))


if __name__ == "__main__":
    main()
