"""The bad network itself: exactly so many bytes pass, and both sides see the same end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.integration.nothing_left_over import nothing_left_over
from voicethere.testing.bad_network import BadNetwork, Fault, How, Toward

__all__ = ["nothing_left_over"]

SECONDS = 10.0
TEXT = bytes(range(32, 127)) * 20


class Peer:
    """One end of a connection: what it got, and how that ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.got = b""
        self.ended: str | None = None
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(1024):
                self.got += data
                self._changed.set()
            self.ended = "end"
        except ConnectionError:
            self.ended = "reset"
        self._changed.set()

    async def has(self, data: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            while self.got != data:
                assert data.startswith(self.got)
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> str:
        async with asyncio.timeout(SECONDS):
            await self._reading
        assert self.ended is not None
        return self.ended

    def close(self) -> None:
        self._reading.cancel()
        self.writer.transport.abort()


class Line:
    """A server behind a bad network, and connections to it."""

    def __init__(self, network: BadNetwork, served: asyncio.Queue[Peer]) -> None:
        self.network = network
        self._served = served
        self._peers: list[Peer] = []

    async def connect(self) -> tuple[Peer, Peer]:
        """The client's end, and the server's."""
        client = Peer(*await asyncio.open_connection("127.0.0.1", self.network.port))
        async with asyncio.timeout(SECONDS):
            server = await self._served.get()
        self._peers += [client, server]
        return client, server

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with _line() as made:
        yield made


@asynccontextmanager
async def _line() -> AsyncIterator[Line]:
    served: asyncio.Queue[Peer] = asyncio.Queue()
    server = await asyncio.start_server(lambda r, w: served.put_nowait(Peer(r, w)), "127.0.0.1", 0)
    async with BadNetwork("127.0.0.1", server.sockets[0].getsockname()[1]) as network:
        made = Line(network, served)
        try:
            yield made
        finally:
            made.close()
            server.close()
            await server.wait_closed()


async def test_everything_passes_both_ways_and_ends_pass_too(line: Line) -> None:
    client, server = await line.connect()
    client.writer.write(TEXT)
    await server.has(TEXT)
    server.writer.write(TEXT * 300)
    server.writer.write_eof()
    await client.has(TEXT * 300)
    assert await client.end() == "end"
    client.writer.write(b"still heard")
    await server.has(TEXT + b"still heard")
    client.writer.write_eof()
    assert await server.end() == "end"


@pytest.mark.parametrize("how", [How.RESET, How.END])
@pytest.mark.parametrize("toward", list(Toward))
@pytest.mark.parametrize("plus", [0, 1, 700])
async def test_so_many_bytes_pass_and_no_more(line: Line, how: How, toward: Toward, plus: int) -> None:
    cut = line.network.arm(Fault(toward=toward, plus=plus, how=how))
    client, server = await line.connect()
    source, sink = (client, server) if toward is Toward.SERVER else (server, client)
    source.writer.write(TEXT)
    assert await sink.end() == str(how)
    assert sink.got == TEXT[:plus]
    assert await source.end() == str(how)
    assert cut.happened.is_set()


async def test_a_pattern_is_found_in_any_pieces(line: Line) -> None:
    cut = line.network.arm(Fault(toward=Toward.CLIENT, at=b"aab", plus=1, how=How.END))
    client, server = await line.connect()
    for piece in (b"xxa", b"xaa", b"a", b"b", b"more"):
        server.writer.write(piece)
        await server.writer.drain()
    assert await client.end() == "end"
    assert client.got == b"xxaxaa"
    assert cut.happened.is_set()


async def test_what_only_looks_like_a_pattern_passes(line: Line) -> None:
    line.network.arm(Fault(toward=Toward.SERVER, at=b"abcabd"))
    client, server = await line.connect()
    client.writer.write(b"abcab")
    client.writer.write(b"cab")
    client.writer.write_eof()
    await server.has(b"abcabcab")
    assert await server.end() == "end"


async def test_a_fault_happens_once_to_whom_it_comes_first(line: Line) -> None:
    cut = line.network.arm(Fault(toward=Toward.SERVER, at=b"now"))
    one, _ = await line.connect()
    _other, other_server = await line.connect()
    _other.writer.write(b"later")
    await other_server.has(b"later")
    one.writer.write(b"now")
    assert await one.end() == "reset"
    assert cut.happened.is_set()
    _other.writer.write(b"now")
    await other_server.has(b"laternow")


async def test_a_plan_is_for_one_connection(line: Line) -> None:
    line.network.plan = lambda number: [Fault(toward=Toward.SERVER, plus=2)] if number == 2 else []
    first, first_server = await line.connect()
    second, second_server = await line.connect()
    first.writer.write(TEXT)
    second.writer.write(TEXT)
    await first_server.has(TEXT)
    assert await second.end() == "reset"
    assert second_server.got == TEXT[:2]


async def test_a_stalled_connection_says_nothing_until_it_is_severed(line: Line) -> None:
    stall = line.network.arm(Fault(toward=Toward.SERVER, plus=3, how=How.STALL))
    client, server = await line.connect()
    client.writer.write(TEXT)
    async with asyncio.timeout(SECONDS):
        await stall.happened.wait()
    server.writer.write(b"unheard")
    other, other_server = await line.connect()
    other.writer.write(b"others are served")
    await other_server.has(b"others are served")
    await server.has(TEXT[:3])
    assert (client.got, client.ended) == (b"", None)
    assert await line.network.sever(How.END) == 2
    assert await client.end() == "end"
    assert client.got == b""


async def test_a_stalled_connection_goes_with_its_client(line: Line) -> None:
    stall = line.network.arm(Fault(toward=Toward.SERVER, how=How.STALL))
    client, server = await line.connect()
    client.writer.write(b"x")
    async with asyncio.timeout(SECONDS):
        await stall.happened.wait()
    client.close()
    assert await server.end() == "reset"


async def test_connections_are_refused_for_a_while(line: Line) -> None:
    client, server = await line.connect()
    line.network.refuse()
    with pytest.raises(ConnectionRefusedError):
        await line.connect()
    client.writer.write(b"who is in stays")
    await server.has(b"who is in stays")
    await line.network.admit()
    await line.connect()
    assert line.network.accepted == 2


async def test_a_server_that_is_not_there_is_a_reset() -> None:
    async with BadNetwork("127.0.0.1", 1) as network:
        client = Peer(*await asyncio.open_connection("127.0.0.1", network.port))
        assert await client.end() == "reset"
        client.close()


async def test_bytes_are_delayed_piece_by_piece(line: Line) -> None:
    line.network.delay(0.002, 100)
    client, server = await line.connect()
    client.writer.write(TEXT)
    await server.has(TEXT)
    line.network.calm()
    client.writer.write(TEXT)
    await server.has(TEXT * 2)


def test_addresses() -> None:
    with pytest.raises(ValueError, match="no http address"):
        BadNetwork.before("https://example.com")
