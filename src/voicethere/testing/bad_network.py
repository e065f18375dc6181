"""A bad network in front of a server: a TCP proxy that cuts, stalls, delays and refuses where a test says.

For tests of clients on real sockets. It knows bytes and where they are to stop; it understands no protocol:
a place is a number of bytes, or a pattern such as `b"HTTP/1.1 202"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import msgspec

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Toward(enum.StrEnum):
    """Which way bytes go."""

    SERVER = "server"
    CLIENT = "client"


class How(enum.StrEnum):
    """What becomes of a connection, on both of its sides."""

    RESET = "reset"
    """It is cut off (RST)."""
    END = "end"
    """It is closed as if nothing were missing (FIN)."""
    STALL = "stall"
    """It stays open, and nothing passes any more. It goes when its client does, or `sever` is called."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a connection, and where: `plus` bytes behind the first byte of `at`, in the bytes that
    go `toward` there, nothing more passes. An empty `at` counts from the connection's begin.

    Everything ahead of the place has passed; with `plus=0` no byte of `at` has.
    """

    toward: Toward
    at: bytes = b""
    plus: int = 0
    how: How = How.RESET


class Armed:
    """A fault that waits for the first connection that comes to its place. It happens once."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.happened = asyncio.Event()


class BadNetwork:
    """Serves on a port of its own and passes everything on to `host:port`, until told otherwise.

    Args:
        host, port: the server.
        seed: of the delays, where there are any.

    Example:
        >>> async with BadNetwork.before("http://127.0.0.1:8000") as network:
        ...     cut = network.arm(Fault(toward=Toward.CLIENT, at=b"HTTP/1.1 202"))
        ...     await use(network.through("http://127.0.0.1:8000/c/key"))
        ...     await cut.happened.wait()
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.accepted = 0
        """Connections so far."""
        self.plan: Callable[[int], Sequence[Fault]] | None = None
        """Further faults of each connection, by its number (from 1): they wait on that one alone."""
        self._target = (host, port)
        self._random = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._armed: list[Armed] = []
        self._delay = 0.0
        self._piece = _CHUNK
        self._open: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._left = False
        self._reserved = socket.socket()

    @classmethod
    def before(cls, url: str, *, seed: int = 0) -> BadNetwork:
        """The network in front of the server of an `http` address."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is no http address")
        return cls(parts.hostname, parts.port or 80, seed=seed)

    async def __aenter__(self) -> BadNetwork:
        # Bound for as long as this lives, so that nobody else gets the port while connections are refused.
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        await self.admit()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self.refuse()
        await self.sever()
        self._reserved.close()

    @property
    def port(self) -> int:
        """Where this network serves on 127.0.0.1, also while it refuses connections."""
        port: int = self._reserved.getsockname()[1]
        return port

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._open)

    def through(self, url: str) -> str:
        """The same address, by way of this network."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"127.0.0.1:{self.port}"))

    def arm(self, fault: Fault) -> Armed:
        """Let the fault happen to the first connection that comes to its place, once."""
        armed = Armed(fault)
        self._armed.append(armed)
        return armed

    def delay(self, seconds: float, piece: int = _CHUNK) -> None:
        """From now on pass bytes on in pieces of at most so many, each after up to so many seconds."""
        self._delay, self._piece = seconds, piece

    def refuse(self) -> None:
        """Admit no new connection: the machine refuses them."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def admit(self) -> None:
        """Admit connections (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, reuse_address=True
            )

    async def sever(self, how: How = How.RESET) -> int:
        """Do this to every connection that is open, stalled ones too; how many there were.

        It has been done when this returns: who uses one of them again finds it gone.
        """
        severed = dict(self._open)
        for connection in severed:
            connection.finish(how)
        if how is How.RESET and severed:
            await asyncio.wait(severed.values())
        return len(severed)

    def calm(self) -> None:
        """Faults that have not happened will not, nothing is delayed, and what is stalled is reset."""
        self._armed.clear()
        self.plan = None
        self.delay(0.0)
        for connection in self._open:
            if connection.how is How.STALL:
                connection.finish(How.RESET)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._left:
            writer.transport.abort()  # it was on its way in when the door was closed
            return
        self.accepted += 1
        own = () if self.plan is None else self.plan(self.accepted)
        connection = _Connection(self, _Side(reader, writer), [Armed(fault) for fault in own])
        task = asyncio.create_task(connection.run(*self._target), name="bad network")
        self._open[connection] = task
        task.add_done_callback(lambda _: self._open.pop(connection))

    def faults(self, toward: Toward, own: Sequence[Armed]) -> Iterator[Armed]:
        """What may still happen to a connection with such faults of its own."""
        for armed in (*own, *self._armed):
            if armed.fault.toward is toward and not armed.happened.is_set():
                yield armed

    @property
    def piece(self) -> int:
        """The most bytes that pass at once."""
        return self._piece

    async def hesitate(self) -> None:
        """The delay of one piece."""
        if self._delay:
            await asyncio.sleep(self._random.uniform(0.0, self._delay))


class _Side:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        # `drain` returns when the machine has taken everything: a reset then loses nothing of it.
        writer.transport.set_write_buffer_limits(0)

    def reset(self) -> None:
        raw: socket.socket = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.writer.transport.abort()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            if not self.writer.is_closing():
                self.writer.write_eof()

    async def discard(self) -> None:
        """Until the other end closes: bytes that nobody read would turn an end into a reset."""
        with contextlib.suppress(OSError):
            while await self.reader.read(_CHUNK):
                pass


class _Connection:
    def __init__(self, network: BadNetwork, client: _Side, own: Sequence[Armed]) -> None:
        self._network = network
        self._client = client
        self._own = own
        self._sides = [client]
        self._told = asyncio.Event()
        self.how: How | None = None

    def finish(self, how: How) -> None:
        """Let nothing pass any more. A stall may be followed by something else, an end by a reset."""
        if self.how is How.RESET:
            return
        self.how = how
        self._told.set()
        for side in self._sides if how is not How.STALL else ():
            if how is How.RESET:
                side.reset()
            else:
                side.end()

    async def run(self, host: str, port: int) -> None:
        try:
            server = _Side(*await asyncio.open_connection(host, port))
        except OSError:
            self._client.reset()
            return
        self._sides.append(server)
        await self._until_told(
            self._pump(self._client, server, Toward.SERVER), self._pump(server, self._client, Toward.CLIENT)
        )
        if self.how is How.STALL and not await self._until_told(self._client.discard()):
            self.finish(How.RESET)  # the client gave up: what it left must not stay with the server
        if self.how is How.END:
            for side in self._sides:
                side.end()
            await self._until_told(*(side.discard() for side in self._sides))
        for side in self._sides:
            if self.how is How.RESET:
                side.reset()
            else:
                side.writer.close()

    async def _until_told(self, *work: Coroutine[object, object, None]) -> bool:
        """Do it all, or as much of it as there is time for; whether `finish` was called meanwhile."""
        tasks = [asyncio.create_task(each, name="bad network, one way") for each in work]
        told = asyncio.create_task(self._told.wait(), name="bad network, told")
        try:
            waiting = {*tasks, told}
            while told in waiting and len(waiting) > 1:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, told):
                task.cancel()
            await asyncio.wait((*tasks, told))
        for task in tasks:
            if not task.cancelled():
                task.result()
        was_told = self._told.is_set()
        self._told.clear()
        return was_told

    async def _pump(self, source: _Side, sink: _Side, toward: Toward) -> None:
        places = _Places()
        held = b""
        try:
            while data := await source.reader.read(_CHUNK):
                held += data
                faults = list(self._network.faults(toward, self._own))
                stop = places.first(held, faults)
                keep = len(held) - places.held_back(held, faults) if stop is None else stop[0]
                await self._write(sink, held[:keep])
                places.passed += keep
                held = held[keep:]
                if stop is not None:
                    stop[1].happened.set()
                    self.finish(stop[1].fault.how)
                    return
            await self._write(sink, held)
            sink.end()
        except OSError:
            self.finish(How.RESET)

    async def _write(self, sink: _Side, data: bytes) -> None:
        size = self._network.piece
        for start in range(0, len(data), size):
            await self._network.hesitate()
            if self.how is not None:
                return
            sink.writer.write(data[start : start + size])
            await sink.writer.drain()


class _Places:
    """Where faults are in the bytes of one direction of one connection. `passed`: how many have gone."""

    def __init__(self) -> None:
        self.passed = 0
        self._found: dict[Armed, int] = {}

    def first(self, held: bytes, faults: Sequence[Armed]) -> tuple[int, Armed] | None:
        """The first place within what is held, as an offset in it, and whose it is."""
        best: tuple[int, Armed] | None = None
        for armed in faults:
            at = self._place(held, armed)
            if at is not None and 0 <= at - self.passed <= len(held):
                offset = at - self.passed
                if best is None or offset < best[0]:
                    best = (offset, armed)
        return best

    def held_back(self, held: bytes, faults: Sequence[Armed]) -> int:
        """How many of the last bytes may be the begin of a pattern, and so must not pass yet."""
        most = 0
        for armed in faults:
            pattern = armed.fault.at
            if armed not in self._found:
                for length in range(min(len(pattern) - 1, len(held)), most, -1):
                    if held.endswith(pattern[:length]):
                        most = length
                        break
        return most

    def _place(self, held: bytes, armed: Armed) -> int | None:
        if armed not in self._found:
            begin = held.find(armed.fault.at) if armed.fault.at else -self.passed
            if begin < 0 and armed.fault.at:
                return None
            self._found[armed] = self.passed + begin + armed.fault.plus
        return self._found[armed]
