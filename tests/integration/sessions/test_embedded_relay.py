"""The embedded relay as a socket: its file, its path, hostile and slow sides."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.framing import MAX_FRAME_BYTES, FrameTooLarge
from voicethere.adapters.relay.paths import RelayBusy, RelayPathInvalid
from voicethere.core.ports import RunnerAway
from voicethere.wire import relay as wire
from voicethere.wire.relay import (
    CancelSession,
    Heartbeat,
    RunnerHello,
    SignalFromPeer,
    SignalToPeer,
    ToRunner,
    ToService,
)

HELLO = RunnerHello(runner_id="r-1", capacity=1)
BIG = "x" * (256 * 1024)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sock"


@pytest.fixture
async def hub(path: Path) -> AsyncIterator[EmbeddedRelayHub]:
    hub = await EmbeddedRelayHub.start(path, patience_seconds=0.2)
    yield hub
    await hub.aclose()


def frame(message: ToService) -> bytes:
    data = wire.encode(message)
    return struct.pack(">I", len(data)) + data


async def next_event(
    hub_messages: AsyncIterator[tuple[str, ToService | None]],
) -> tuple[str, ToService | None]:
    return await asyncio.wait_for(anext(hub_messages), 20)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(reader.read(), 20) == b""


async def test_only_the_owner_may_connect(hub: EmbeddedRelayHub, path: Path) -> None:
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_closing_removes_the_socket(path: Path) -> None:
    hub = await EmbeddedRelayHub.start(path)
    await hub.aclose()
    await hub.aclose()
    assert not path.exists()


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    path = directory / "relay.sock"
    before = len(os.listdir("/proc/self/fd"))
    hub = await EmbeddedRelayHub.start(path)
    link = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    messages = hub.messages()
    assert await next_event(messages) == ("r-1", HELLO)
    assert path.stat().st_mode & 0o777 == 0o600
    await link.aclose()
    await hub.aclose()
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_name_that_cannot_be_reached_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RelayPathInvalid, match="64 bytes"):
        await EmbeddedRelayHub.start(tmp_path / ("n" * 120))


async def test_a_socket_that_a_dead_process_left_is_replaced(path: Path) -> None:
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    hub = await EmbeddedRelayHub.start(path)
    link = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    assert await next_event(hub.messages()) == ("r-1", HELLO)
    await link.aclose()
    await hub.aclose()


async def test_a_second_service_on_the_same_path_is_refused(hub: EmbeddedRelayHub, path: Path) -> None:
    with pytest.raises(RelayBusy, match="another session service"):
        await EmbeddedRelayHub.start(path)
    assert path.is_socket()


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await EmbeddedRelayHub.start(path)
    assert path.read_text() == "precious"


async def test_a_link_waits_for_its_service(path: Path) -> None:
    link = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    await link.send(Heartbeat(active=0))  # dropped, not an error
    assert not link.linked
    hub = await EmbeddedRelayHub.start(path)
    messages = hub.messages()
    assert await next_event(messages) == ("r-1", HELLO)
    await hub.aclose()
    hub = await EmbeddedRelayHub.start(path)
    assert await next_event(hub.messages()) == ("r-1", HELLO)
    await link.aclose()
    await hub.aclose()


async def test_connections_that_do_not_say_hello_are_dropped_and_nobody_else(path: Path) -> None:
    hub = await EmbeddedRelayHub.start(path, hello_seconds=0.2)
    good = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    messages = hub.messages()
    assert await next_event(messages) == ("r-1", HELLO)
    before_hello = [
        b"",  # silent
        b"\x00",  # half a length
        struct.pack(">I", MAX_FRAME_BYTES + 1) + b"x",
        struct.pack(">I", 3) + b"\xff\xff\xff",
        struct.pack(">I", 0),
        frame(Heartbeat(active=1)),
    ]
    for data in before_hello:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(data)
        assert await is_closed(reader)
        writer.close()
    await good.send(Heartbeat(active=0))
    assert await next_event(messages) == ("r-1", Heartbeat(active=0))
    await good.aclose()
    await hub.aclose()


async def test_junk_behind_a_hello_drops_its_connection_and_nobody_else(
    hub: EmbeddedRelayHub, path: Path
) -> None:
    good = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    messages = hub.messages()
    assert await next_event(messages) == ("r-1", HELLO)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(frame(RunnerHello(runner_id="junk", capacity=1)) + struct.pack(">I", 2) + b"{}")
    assert (await next_event(messages))[0] == "junk"
    assert await next_event(messages) == ("junk", None)
    assert await is_closed(reader)
    writer.close()
    await good.send(Heartbeat(active=0))
    assert await next_event(messages) == ("r-1", Heartbeat(active=0))
    await good.aclose()


async def test_a_second_link_of_a_runner_replaces_the_first(hub: EmbeddedRelayHub, path: Path) -> None:
    messages = hub.messages()
    first_reader, first = await asyncio.open_unix_connection(str(path))
    first.write(frame(HELLO))
    await next_event(messages)
    second_reader, second = await asyncio.open_unix_connection(str(path))
    again = RunnerHello(runner_id="r-1", capacity=7)
    second.write(frame(again))
    assert await next_event(messages) == ("r-1", again)
    assert await is_closed(first_reader)
    await hub.send("r-1", CancelSession(session_id="s"))
    (length,) = struct.unpack(">I", await second_reader.readexactly(4))
    assert wire.decode_to_runner(await second_reader.readexactly(length)) == CancelSession(session_id="s")
    second.write(frame(Heartbeat(active=1)))
    assert await next_event(messages) == ("r-1", Heartbeat(active=1))  # and no word of a lost link
    first.close()
    second.close()


async def test_a_runner_that_does_not_read_loses_its_link_and_stops_nobody(
    hub: EmbeddedRelayHub, path: Path
) -> None:
    messages = hub.messages()
    _, writer = await asyncio.open_unix_connection(str(path), limit=1024)
    writer.write(frame(RunnerHello(runner_id="frozen", capacity=1)))
    assert (await next_event(messages))[0] == "frozen"
    good = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    assert await next_event(messages) == ("r-1", HELLO)

    async def flood() -> None:
        while True:
            await hub.send("frozen", SignalFromPeer(session_id="s", peer_id="p", message=BIG))

    flooding = asyncio.create_task(flood())
    to_good = good.messages()
    for number in range(20):
        await hub.send("r-1", CancelSession(session_id=str(number)))
        message: ToRunner = await asyncio.wait_for(anext(to_good), 20)
        assert message == CancelSession(session_id=str(number))
    with pytest.raises(RunnerAway, match=r"did not read|not linked|gone"):
        await asyncio.wait_for(flooding, 20)
    assert await next_event(messages) == ("frozen", None)
    writer.close()
    await good.aclose()


async def test_a_service_that_does_not_read_cannot_hold_a_runner_up(path: Path) -> None:
    hub = await EmbeddedRelayHub.start(path)  # nobody reads its messages
    link = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO, patience_seconds=0.1)
    linked_before = False
    async with asyncio.timeout(20):
        while True:
            await link.send(SignalToPeer(session_id="s", peer_id="p", message=BIG))
            if linked_before and not link.linked:
                break  # the link was given up, and `send` returned all the same
            linked_before = linked_before or link.linked
            await asyncio.sleep(0)
    await link.aclose()
    await hub.aclose()


async def test_a_message_that_is_too_large_is_refused_by_its_sender(
    hub: EmbeddedRelayHub, path: Path
) -> None:
    link = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    messages = hub.messages()
    await next_event(messages)
    too_large = "x" * (MAX_FRAME_BYTES + 1)
    with pytest.raises(FrameTooLarge, match="at most"):
        await hub.send("r-1", SignalFromPeer(session_id="s", peer_id="p", message=too_large))
    with pytest.raises(FrameTooLarge):
        await link.send(SignalToPeer(session_id="s", peer_id="p", message=too_large))
    await link.send(Heartbeat(active=0))
    assert await next_event(messages) == ("r-1", Heartbeat(active=0))
    await link.aclose()


async def test_a_runner_cannot_say_hello_as_another(hub: EmbeddedRelayHub, path: Path) -> None:
    messages = hub.messages()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(frame(HELLO))
    assert await next_event(messages) == ("r-1", HELLO)
    writer.write(frame(RunnerHello(runner_id="r-2", capacity=1)))
    assert await next_event(messages) == ("r-1", None)
    assert await is_closed(reader)
    writer.close()


async def test_the_roll_is_called_past_a_runner_that_does_not_read(hub: EmbeddedRelayHub, path: Path) -> None:
    messages = hub.messages()
    _, writer = await asyncio.open_unix_connection(str(path), limit=1024)
    writer.write(frame(RunnerHello(runner_id="frozen", capacity=1)))
    assert (await next_event(messages))[0] == "frozen"
    good = await EmbeddedRunnerLink.start(path, hello=lambda: HELLO)
    assert await next_event(messages) == ("r-1", HELLO)

    async def flood() -> None:
        while True:
            await hub.send("frozen", SignalFromPeer(session_id="s", peer_id="p", message=BIG))

    flooding = asyncio.create_task(flood())
    await hub.call_roll()
    events = [await next_event(messages), await next_event(messages)]
    assert sorted(events, key=lambda event: event[0]) == [("frozen", None), ("r-1", HELLO)]
    with pytest.raises(RunnerAway):
        await asyncio.wait_for(flooding, 20)
    writer.close()
    await good.aclose()


async def test_a_hello_that_raises_does_not_end_the_link(hub: EmbeddedRelayHub, path: Path) -> None:
    calls = 0

    def hello() -> RunnerHello:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("not yet")
        return HELLO

    link = await EmbeddedRunnerLink.start(path, hello=hello)
    assert await next_event(hub.messages()) == ("r-1", HELLO)
    await link.aclose()
