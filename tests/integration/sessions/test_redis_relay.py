"""The relay on a real Redis that is killed, paused and started again, with runners as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
import structlog
from redis.asyncio import Redis

from voicethere.adapters.relay import redis_line
from voicethere.adapters.relay.framing import MAX_FRAME_BYTES
from voicethere.adapters.relay.redis import RedisRelayHub, RedisRunnerLink
from voicethere.adapters.relay.redis_frames import FromRunner, FromService, Goodbye, Replaced, encode_frame
from voicethere.adapters.relay.redis_presence import Presence, Verdict
from voicethere.core.ports import RunnerAway
from voicethere.testing.redis_server import RedisServer, redis_server
from voicethere.wire import relay as wire
from voicethere.wire.relay import (
    CancelSession,
    Heartbeat,
    RunnerHello,
    SessionWanted,
    SignalFromPeer,
    SignalToPeer,
    ToService,
)

SECRET = "s3cret-word"
Event = tuple[str, ToService | None]

_RUNNER = """
import asyncio, sys
from voicethere.adapters.relay.redis import RedisRunnerLink
from voicethere.wire.relay import Heartbeat, RunnerHello

async def main():
    url, runner_id = sys.argv[1:]
    link = await RedisRunnerLink.start(
        url, runner_id=runner_id, hello=lambda: RunnerHello(runner_id=runner_id, capacity=1)
    )
    async for message in link.messages():
        await link.send(Heartbeat(active=int(message.session_id)))

asyncio.run(main())
"""


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server(password=SECRET) as server:
        yield server


class Ends:
    """Hubs and links that are closed in the end; what a hub yields is collected as it comes."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._stack = contextlib.AsyncExitStack()

    async def hub(self, **options: float) -> tuple[RedisRelayHub, asyncio.Queue[Event]]:
        hub = await RedisRelayHub.start(self._server.url, **options)  # type: ignore[arg-type]
        events: asyncio.Queue[Event] = asyncio.Queue()

        async def collect() -> None:
            async for event in hub.messages():
                events.put_nowait(event)

        pump = asyncio.create_task(collect())
        self._stack.push_async_callback(asyncio.wait_for, pump, 5)
        self._stack.push_async_callback(hub.aclose)
        await asyncio.wait_for(hub.wait_linked(), 5)
        return hub, events

    async def link(
        self, runner_id: str = "r-1", hello: Callable[[], RunnerHello] | None = None
    ) -> RedisRunnerLink:
        link = await RedisRunnerLink.start(
            self._server.url,
            runner_id=runner_id,
            hello=hello or (lambda: RunnerHello(runner_id=runner_id, capacity=1)),
        )
        self._stack.push_async_callback(link.aclose)
        return link

    async def process(self, runner_id: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RUNNER, self._server.url, runner_id
        )

        async def end() -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        self._stack.push_async_callback(end)
        return process

    async def aclose(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def ends(server: RedisServer) -> AsyncIterator[Ends]:
    ends = Ends(server)
    yield ends
    await ends.aclose()
    # Nothing that this package started runs on.
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("relay")] == []


async def _event(events: asyncio.Queue[Event]) -> Event:
    return await asyncio.wait_for(events.get(), 20)


async def _hello(events: asyncio.Queue[Event], runner_id: str = "r-1") -> None:
    """Until this runner is there: the others say hello again whenever a starting service calls the roll."""
    async with asyncio.timeout(20):
        while (event := await events.get())[0] != runner_id:
            assert isinstance(event[1], RunnerHello)
    assert event == (runner_id, RunnerHello(runner_id=runner_id, capacity=1))


async def _next_but_hellos(events: asyncio.Queue[Event]) -> Event:
    """A runner that was asked twice says hello twice."""
    while isinstance((event := await _event(events))[1], RunnerHello):
        pass
    return event


async def _until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """A condition of another process' making: nothing announces it."""
    async with asyncio.timeout(20):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------ processes that end


async def test_a_killed_runner_is_gone_soon_and_was_heard_before(ends: Ends) -> None:
    hub, events = await ends.hub(roll_seconds=3600)  # no roll is what finds it
    process = await ends.process("r-1")
    await _hello(events)
    for number in range(200):
        await hub.send("r-1", CancelSession(session_id=str(number)))
    assert [await _event(events) for _ in range(200)] == [
        ("r-1", Heartbeat(active=number)) for number in range(200)
    ]
    process.kill()
    assert await _event(events) == ("r-1", None)
    with pytest.raises(RunnerAway, match="not linked"):
        await hub.send("r-1", CancelSession(session_id="1"))
    await ends.process("r-1")  # and another life of it is welcome
    await _hello(events)
    await hub.send("r-1", CancelSession(session_id="7"))
    assert await _event(events) == ("r-1", Heartbeat(active=7))


async def test_nobody_listens_for_a_runner_that_was_just_killed(ends: Ends) -> None:
    hub, events = await ends.hub(poll_seconds=3600)
    process = await ends.process("r-1")
    await _hello(events)
    process.kill()
    await process.wait()

    async def send_on() -> None:
        while True:  # until Redis has seen the end of its connection
            await hub.send("r-1", CancelSession(session_id="1"))

    with pytest.raises(RunnerAway, match="does not listen"):
        await asyncio.wait_for(send_on(), 5)


async def test_a_runner_that_hangs_is_heard_again_after_its_next_hello(ends: Ends) -> None:
    hub, events = await ends.hub()
    process = await ends.process("r-1")
    await _hello(events)
    process.send_signal(signal.SIGSTOP)
    await hub.send("r-1", CancelSession(session_id="1"))
    hub.drop("r-1")  # the service's own rule of silence
    assert await _event(events) == ("r-1", None)
    process.send_signal(signal.SIGCONT)
    await _hello(events)  # what it answered before does not count
    await hub.send("r-1", CancelSession(session_id="2"))
    # What it answered before may have asked it for its hello once more.
    assert await _next_but_hellos(events) == ("r-1", Heartbeat(active=2))


# ------------------------------------------------------------------ Redis goes and comes


async def test_redis_killed_under_load_loses_what_it_must_and_repeats_nothing(
    server: RedisServer, ends: Ends, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, events = await ends.hub()
    link = await ends.link()
    await _hello(events)
    sent = {"to runner": 0, "to service": 0}
    heard_by_runner: list[int] = []
    stop = asyncio.Event()

    async def talk_to_runner() -> None:
        while not stop.is_set():
            sent["to runner"] += 1
            with contextlib.suppress(RunnerAway):
                await hub.send(
                    "r-1", SignalFromPeer(session_id="s", peer_id="p", message=str(sent["to runner"]))
                )
            await asyncio.sleep(0)

    async def talk_to_service() -> None:
        while not stop.is_set():
            sent["to service"] += 1
            await link.send(SignalToPeer(session_id="s", peer_id="p", message=str(sent["to service"])))
            await asyncio.sleep(0.0005)

    async def listen() -> None:
        async for message in link.messages():
            assert isinstance(message, SignalFromPeer)
            heard_by_runner.append(int(message.message))

    talking = [asyncio.create_task(talk()) for talk in (talk_to_runner, talk_to_service)]
    listening = asyncio.create_task(listen())
    heard_by_service: list[int] = []
    hellos = 0

    def note(event: Event) -> None:
        nonlocal hellos
        runner_id, message = event
        assert runner_id == "r-1"
        if isinstance(message, SignalToPeer):
            heard_by_service.append(int(message.message))
        else:
            assert isinstance(message, RunnerHello), message  # nobody counts as gone
            hellos += 1

    async def hear(count: int) -> None:
        last = len(heard_by_service) + count
        async with asyncio.timeout(20):
            while len(heard_by_service) < last:
                note(await events.get())

    await hear(100)
    for _ in range(3):
        await server.kill()
        await _until(lambda: not hub.linked and not link.linked)
        while not events.empty():
            note(events.get_nowait())
        before = len(heard_by_runner)
        await server.start()
        await hear(100)
        await _until(lambda before=before: len(heard_by_runner) > before + 100)  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*talking)
    assert hellos >= 3
    for heard, said in ((heard_by_service, "to service"), (heard_by_runner, "to runner")):
        assert all(one < next_one for one, next_one in itertools.pairwise(heard)), said
        assert heard[-1] <= sent[said]
    await link.aclose()
    await asyncio.wait_for(listening, 5)
    assert SECRET not in "".join(capsys.readouterr())


async def test_who_does_not_answer_the_roll_after_an_outage_is_gone(
    server: RedisServer, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the one that stays may look for Redis a second later than the service: it is to be in time.
    monkeypatch.setattr(redis_line, "_LONGEST_PAUSE_SECONDS", 0.05)
    hub, events = await ends.hub(roll_seconds=1.5)
    process = await ends.process("killed")
    await _hello(events, "killed")
    await ends.link("stays")
    await _hello(events, "stays")
    await server.kill()
    await _until(lambda: not hub.linked)
    process.kill()
    await process.wait()
    with pytest.raises(RunnerAway, match="away"):
        await hub.send("stays", CancelSession(session_id="s"))
    assert events.empty()  # that this service lost Redis says nothing of anybody
    await server.start()
    await _hello(events, "stays")
    while (event := await _event(events)) != ("killed", None):
        assert event[0] == "stays"
        assert event[1] is not None
    await hub.send("stays", CancelSession(session_id="s"))


async def test_a_paused_redis_is_noticed_survived_and_holds_up_no_end(
    server: RedisServer, ends: Ends
) -> None:
    hub, events = await ends.hub()
    link = await ends.link()
    await _hello(events)
    other_hub = await RedisRelayHub.start(server.url)
    other_link = await RedisRunnerLink.start(
        server.url, runner_id="r-2", hello=lambda: RunnerHello(runner_id="r-2", capacity=1)
    )
    await _hello(events, "r-2")
    await asyncio.wait_for(other_hub.wait_linked(), 5)
    server.pause()
    big = "x" * (MAX_FRAME_BYTES // 2)
    for _ in range(8):  # more than the sockets take
        await asyncio.wait_for(other_link.send(SignalToPeer(session_id="s", peer_id="p", message=big)), 20)
    await asyncio.wait_for(asyncio.gather(other_hub.aclose(), other_link.aclose()), 20)
    await _until(lambda: not hub.linked and not link.linked)
    await asyncio.wait_for(link.send(Heartbeat(active=1)), 1)  # dropped, not waited for
    while not events.empty():
        assert events.get_nowait()[1] is not None  # nobody counts as gone
    server.resume()
    async with asyncio.timeout(20):
        while True:
            runner_id, message = await events.get()
            assert (runner_id, message) != ("r-1", None)
            if runner_id == "r-1" and isinstance(message, RunnerHello):
                break
    await _until(lambda: hub.linked and link.linked)
    await hub.send("r-1", CancelSession(session_id="s"))


async def test_a_subscription_that_redis_cuts_is_renewed_with_a_hello(
    server: RedisServer, ends: Ends
) -> None:
    hub, events = await ends.hub()
    link = await ends.link()
    await _hello(events)
    async with Redis.from_url(server.url) as client:
        assert await client.client_kill_filter(_type="pubsub") == 2
    await _hello(events)
    await _until(lambda: hub.linked and link.linked)

    async def accepted() -> bool:
        with contextlib.suppress(RunnerAway):
            await hub.send("r-1", CancelSession(session_id="s"))
            return True
        return False

    await _until(accepted)
    assert await asyncio.wait_for(anext(link.messages()), 5) == CancelSession(session_id="s")


async def test_ends_that_begin_before_redis_does_find_it_later(server: RedisServer) -> None:
    await server.kill()
    hub = await RedisRelayHub.start(server.url)
    link = await RedisRunnerLink.start(
        server.url, runner_id="r-1", hello=lambda: RunnerHello(runner_id="r-1", capacity=1)
    )
    await link.send(Heartbeat(active=1))
    await hub.publish(SessionWanted(session_id="dropped"))
    await hub.call_roll()
    assert not hub.linked
    assert not link.linked
    await server.start()
    assert (await asyncio.wait_for(anext(hub.messages()), 20))[0] == "r-1"
    await hub.publish(SessionWanted(session_id="s"))
    assert await asyncio.wait_for(anext(hub.notices()), 5) == SessionWanted(session_id="s")
    await link.aclose()
    await hub.aclose()
    await server.kill()
    hub = await RedisRelayHub.start(server.url)
    await asyncio.wait_for(hub.aclose(), 20)


async def test_a_reader_that_falls_behind_loses_no_runner(server: RedisServer) -> None:
    """An answer to the roll that nobody has read yet is an answer."""
    # Time enough for a link that is a little later to be back than the service.
    hub = await RedisRelayHub.start(server.url, roll_seconds=1.0, poll_seconds=0.05)
    await asyncio.wait_for(hub.wait_linked(), 5)
    link = await RedisRunnerLink.start(
        server.url, runner_id="r-1", hello=lambda: RunnerHello(runner_id="r-1", capacity=1)
    )
    messages = hub.messages()
    assert isinstance((await asyncio.wait_for(anext(messages), 5))[1], RunnerHello)
    async with Redis.from_url(server.url) as client:
        assert await client.client_kill_filter(_type="pubsub") == 2
        await _until(lambda: not (hub.linked and link.linked))
        await _until(lambda: hub.linked and link.linked)
        for number in range(3000):  # three times what the hub keeps
            await link.send(Heartbeat(active=number))
        await _until(lambda: bool(hub._line._marks))  # the roll is being closed
        heard: list[ToService | None] = []
        while not heard or heard[-1] != Heartbeat(active=2999):
            heard.append((await asyncio.wait_for(anext(messages), 20))[1])
    assert None not in heard
    beats = [message.active for message in heard if isinstance(message, Heartbeat)]
    assert beats == list(range(3000))
    await link.aclose()
    await hub.aclose()


# ------------------------------------------------------------------ two of one name


async def test_the_newer_of_two_processes_with_one_id_is_heard(ends: Ends) -> None:
    hub, events = await ends.hub()
    older = await ends.link()
    await _hello(events)
    with structlog.testing.capture_logs() as logs:
        newer = await ends.link("r-1", lambda: RunnerHello(runner_id="r-1", capacity=7))
        assert await _event(events) == ("r-1", RunnerHello(runner_id="r-1", capacity=7))
        await older.send(Heartbeat(active=1))
        await _until(lambda: not older.linked)
    assert "relay_runner_replaced" in [entry["event"] for entry in logs]
    await newer.send(Heartbeat(active=2))
    assert await _event(events) == ("r-1", Heartbeat(active=2))
    await hub.send("r-1", CancelSession(session_id="s"))
    assert await asyncio.wait_for(anext(newer.messages()), 5) == CancelSession(session_id="s")
    await hub.call_roll()  # both answer; only one counts
    assert await _event(events) == ("r-1", RunnerHello(runner_id="r-1", capacity=7))
    await newer.aclose()
    assert await _event(events) == ("r-1", None)
    await older.send(Heartbeat(active=1))  # it is asked for a hello
    await _hello(events)
    assert older.linked


# ------------------------------------------------------------------ junk and limits


async def test_junk_is_ignored_and_counted(server: RedisServer, ends: Ends) -> None:
    hub, events = await ends.hub()
    link = await ends.link()
    await _hello(events)
    notices = hub.notices()
    mismatch = encode_frame(
        FromRunner("r-1", 1, "0" * 16, 1, wire.encode(RunnerHello(runner_id="another", capacity=1)))
    )
    unknown_body = encode_frame(FromRunner("r-1", 1, "0" * 16, 1, msgspec.msgpack.encode({"t": "new"})))
    junk = [
        b"",
        b"\xff\xff",
        b"{}",
        msgspec.msgpack.encode(["unknown", 1]),
        msgspec.msgpack.encode(["message", "x" * 201, 1, "0" * 16, 1, b""]),
        msgspec.msgpack.encode(["message", "r-1", 1, "../../*", 1, b""]),
        msgspec.msgpack.encode(["message", "r-1", 1, "0" * 16, -1, b""]),
        msgspec.msgpack.encode([[[]]] * 1000),
        mismatch,
        unknown_body,
        encode_frame(Replaced("not for services")),
    ]
    async with Redis.from_url(server.url) as client:
        own = next(name for name in await client.pubsub_channels("voicethere:runner:r-1:*"))
        for data in junk:
            await client.publish("voicethere:services", data)
            await client.publish("voicethere:notices", data)
            await client.publish("voicethere:runners", data if data != junk[-1] else b"")
            await client.publish(own, data if data != junk[-1] else b"")
            await client.publish("other-prefix:services", data)
    await _until(lambda: hub.junk == 2 * len(junk) and link.junk == 2 * len(junk))
    await link.send(Heartbeat(active=3))
    assert await _event(events) == ("r-1", Heartbeat(active=3))
    await hub.publish(SessionWanted(session_id="s"))
    assert await asyncio.wait_for(anext(notices), 5) == SessionWanted(session_id="s")
    await hub.send("r-1", CancelSession(session_id="s"))
    assert await asyncio.wait_for(anext(link.messages()), 5) == CancelSession(session_id="s")


async def test_an_order_heard_again_is_not_passed_on(server: RedisServer, ends: Ends) -> None:
    _hub, events = await ends.hub()
    link = await ends.link()
    await _hello(events)

    def order(number: int) -> bytes:
        body = wire.encode(CancelSession(session_id=str(number)))
        return encode_frame(FromService("s", "a" * 16, number, body))

    async with Redis.from_url(server.url) as client:
        own = next(name for name in await client.pubsub_channels("voicethere:runner:r-1:*"))
        for number in (1, 2, 2, 1, 3):
            await client.publish(own, order(number))
    messages = link.messages()
    for number in (1, 2, 3):
        assert await asyncio.wait_for(anext(messages), 5) == CancelSession(session_id=str(number))


async def test_prefixes_keep_platforms_apart(server: RedisServer, ends: Ends) -> None:
    _hub, events = await ends.hub()
    stranger = await RedisRunnerLink.start(
        server.url,
        runner_id="r-1",
        hello=lambda: RunnerHello(runner_id="r-1", capacity=9),
        prefix="voicethere2",
    )
    await asyncio.wait_for(stranger.wait_linked(), 5)
    await stranger.send(Heartbeat(active=9))
    await stranger.aclose()
    await ends.link()
    await _hello(events)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
async def test_names_that_no_channel_can_have_are_explained(name: str) -> None:
    url = "redis://127.0.0.1:1"
    with pytest.raises(ValueError, match="1 to 200 printable"):
        await RedisRunnerLink.start(
            url, runner_id=name, hello=lambda: RunnerHello(runner_id=name, capacity=1)
        )
    with pytest.raises(ValueError, match="1 to 200 printable"):
        await RedisRelayHub.start(url, prefix=name)


async def test_a_hello_that_raises_is_said_later(ends: Ends) -> None:
    calls = 0

    def hello() -> RunnerHello:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("not yet")
        return RunnerHello(runner_id="r-1", capacity=1)

    _hub, events = await ends.hub()
    await ends.link("r-1", hello)
    await _hello(events)


# ------------------------------------------------------------------ what counts, without Redis


def _frame(number: int, *, born: int = 1, instance: str = "a" * 16, runner_id: str = "r") -> FromRunner:
    return FromRunner(runner_id, born, instance, number, b"")


def test_frames_count_once_and_a_gap_is_asked_about() -> None:
    presence = Presence()
    assert presence.judge(_frame(1), hello=False) is Verdict.ASK
    assert presence.judge(_frame(2), hello=True) is Verdict.PASS_ON
    assert presence.judge(_frame(2), hello=False) is Verdict.OLD
    assert presence.judge(_frame(3), hello=False) is Verdict.PASS_ON
    assert presence.judge(_frame(5), hello=False) is Verdict.PASS_ON_AND_ASK
    assert presence.judge(_frame(4), hello=False) is Verdict.OLD
    assert presence.lose("r")
    assert not presence.lose("r")
    assert presence.judge(_frame(6), hello=False) is Verdict.ASK
    assert presence.judge(_frame(5), hello=True) is Verdict.OLD
    assert presence.judge(_frame(7), hello=True) is Verdict.PASS_ON


def test_the_newer_life_of_a_runner_counts_until_it_is_gone() -> None:
    presence = Presence()
    assert presence.judge(_frame(1, born=5), hello=True) is Verdict.PASS_ON
    younger = "b" * 16
    assert presence.judge(_frame(1, born=6, instance=younger), hello=False) is Verdict.ASK
    assert presence.judge(_frame(2, born=6, instance=younger), hello=True) is Verdict.PASS_ON
    assert presence.judge(_frame(2, born=5), hello=True) is Verdict.REPLACED
    assert presence.judge(Goodbye("r", 5, "a" * 16, 3), hello=False) is Verdict.REPLACED
    assert presence.instance_of("r") == younger
    assert presence.judge(Goodbye("r", 6, younger, 3), hello=False) is Verdict.PASS_ON
    assert presence.lose("r")
    assert presence.judge(_frame(4, born=5), hello=True) is Verdict.PASS_ON


def test_two_polls_without_a_listener_are_an_end_but_not_before_the_roll_is_answered() -> None:
    presence = Presence()
    presence.judge(_frame(1), hello=True)
    poll = ("r", "a" * 16)
    assert [presence.polled(*poll, count) for count in (0, 1, 0, 0)] == [False, False, False, True]
    presence.call_roll()
    assert presence.unanswered() == ["r"]
    assert [presence.polled(*poll, 0) for _ in range(3)] == [False, False, False]
    presence.judge(_frame(2), hello=True)
    assert presence.unanswered() == []
    assert [presence.polled(*poll, 0) for _ in range(2)] == [False, True]
    assert not presence.polled("r", "b" * 16, 0)


def test_only_so_many_runners_are_known_and_those_that_are_gone_are_forgotten_first() -> None:
    presence = Presence(most_runners=2)
    for name in ("a", "b"):
        assert presence.judge(_frame(1, runner_id=name), hello=True) is Verdict.PASS_ON
    assert presence.judge(_frame(1, runner_id="c"), hello=True) is Verdict.TOO_MANY
    presence.lose("b")
    assert presence.judge(_frame(1, runner_id="c"), hello=True) is Verdict.PASS_ON
    assert [runner_id for runner_id, _ in presence.here()] == ["a", "c"]
