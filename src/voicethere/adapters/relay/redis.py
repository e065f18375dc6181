"""The relay of many machines, over Redis pub/sub: the session services' end (`redis_link` is the runners').

Pub/sub keeps nothing: what is said while somebody is away is lost for him. So a runner says hello whenever
its subscription begins, a service calls the roll whenever its own does, and frames carry numbers that show
what is old or missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec
import structlog
from redis.asyncio import Redis

from voicethere.adapters.relay.framing import LinkClosed, check_size
from voicethere.adapters.relay.inbox import Inbox
from voicethere.adapters.relay.notices import NoticeBox
from voicethere.adapters.relay.redis_client import ANSWER_SECONDS, check_name
from voicethere.adapters.relay.redis_frames import (
    Channels,
    FromRunner,
    FromService,
    Goodbye,
    HelloWanted,
    Notice,
    Replaced,
    decode_notice_frame,
    decode_to_services,
    encode_frame,
)
from voicethere.adapters.relay.redis_junk import Junk
from voicethere.adapters.relay.redis_line import RedisLine
from voicethere.adapters.relay.redis_link import RedisRunnerLink
from voicethere.adapters.relay.redis_presence import Presence, Verdict
from voicethere.core.ports import RunnerAway
from voicethere.wire import relay as wire
from voicethere.wire.relay import RunnerHello, ServiceNotice, ToRunner, ToService

__all__ = ["RedisRelayHub", "RedisRunnerLink"]

_log = structlog.get_logger(__name__)

_FLUSH_SECONDS = 1.0
_ASK_SECONDS = 0.5
_MOST_ASKED = 4096
_POLL_CHUNK = 1000


class RedisRelayHub:
    """Implements `RelayHub`.

    While Redis is away nothing is yielded, `linked` is false and nobody counts as gone; once it is back the
    roll is called, and who does not answer within `roll_seconds` is gone. A runner whose process dies is gone
    after two polls (`poll_seconds`) that find nobody on its channel.

    Example:
        >>> hub = await RedisRelayHub.start("redis://127.0.0.1:6379")
        >>> async for runner_id, message in hub.messages():
        ...     await hub.send(runner_id, CancelSession(session_id="…"))
    """

    def __init__(
        self, url: str, *, prefix: str, service_id: str | None, roll_seconds: float, poll_seconds: float
    ) -> None:
        self._instance = secrets.token_hex(8)
        self._service = check_name("a service's id", service_id or f"service-{self._instance}")
        self._channels = Channels(check_name("the relay's prefix", prefix))
        self._roll_seconds = roll_seconds
        self._poll_seconds = poll_seconds
        self._line = RedisLine(url, self)
        self._presence = Presence()
        self._inbox: Inbox[tuple[str, ToService | None]] = Inbox()
        self._notices = NoticeBox()
        self._junk = Junk()
        self._number = 0
        self._roll: asyncio.Future[int | None] | None = None
        self._lost: list[str] = []
        self._delivery = asyncio.Lock()
        self._reports: set[asyncio.Task[None]] = set()
        self._asked: OrderedDict[tuple[str, str, type], float] = OrderedDict()

    @classmethod
    async def start(
        cls,
        url: str,
        *,
        prefix: str = "voicethere",
        service_id: str | None = None,
        roll_seconds: float = 3.0,
        poll_seconds: float = 0.25,
    ) -> RedisRelayHub:
        """Begin to connect; returns at once, whether or not Redis is there (see `linked`, `wait_linked`).

        Raises:
            RelayUrlInvalid, ValueError: the address, the prefix or the id cannot be used.
        """
        hub = cls(
            url, prefix=prefix, service_id=service_id, roll_seconds=roll_seconds, poll_seconds=poll_seconds
        )
        hub._line.start()
        return hub

    @property
    def linked(self) -> bool:
        """Whether Redis is there now."""
        return self._line.up

    async def wait_linked(self) -> None:
        """Return once Redis is there and has passed on the roll call."""
        await self._line.wait_up()
        if self._roll is not None:
            await asyncio.wait([self._roll])

    @property
    def junk(self) -> int:
        """How many messages were ignored because they could not be understood."""
        return self._junk.count

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Return once Redis has passed the message on to the runner's connection.

        Raises:
            RunnerAway: that runner is not linked, nobody listens for it, or Redis is away; in the last case
                the runner may have got the message all the same.
            FrameTooLarge: (a ValueError) the message is too large for a relay.
        """
        body = wire.encode(message)
        check_size(body)
        instance = self._presence.instance_of(runner_id)
        if instance is None:
            raise RunnerAway(f"runner {runner_id!r} is not linked")

        def build() -> bytes:
            return encode_frame(FromService(self._service, self._instance, self._count(), body))

        try:
            heard = await self._line.outgoing.put(self._channels.runner(runner_id, instance), build)
        except LinkClosed as error:
            raise RunnerAway(f"runner {runner_id!r}: {error}") from error
        receivers = await heard
        if receivers is None:
            raise RunnerAway(f"runner {runner_id!r}: the relay went away")
        if receivers == 0:
            raise RunnerAway(f"runner {runner_id!r} does not listen")

    def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """For one reader. A runner's messages begin with its `RunnerHello`; all end with `aclose`."""
        return self._inbox.items()

    async def call_roll(self) -> None:
        """Ask every runner for a fresh hello. Nothing while Redis is away: it is done when it is back."""
        with contextlib.suppress(LinkClosed):
            await self._line.outgoing.put(self._channels.runners, self._roll_call)

    async def publish(self, notice: ServiceNotice) -> None:
        """Tell every session service on this Redis and prefix, this one included; dropped while it is away.

        Raises:
            FrameTooLarge: (a ValueError) the notice is too large for a relay.
        """
        body = wire.encode(notice)
        check_size(body)

        def build() -> bytes:
            return encode_frame(Notice(self._service, body))

        with contextlib.suppress(LinkClosed):
            await self._line.outgoing.put(self._channels.notices, build)

    def notices(self) -> AsyncIterator[ServiceNotice]:
        """For one reader, until `aclose`. One that falls behind by a thousand loses the newest ones."""
        return self._notices.items()

    def drop(self, runner_id: str) -> None:
        """Hear no more of a runner until its next hello, for which it is asked. Harmless where it is gone."""
        instance = self._presence.instance_of(runner_id)
        if instance is not None:
            self._lose(runner_id)
            self._ask(runner_id, instance, HelloWanted(self._service), always=True)
            report = asyncio.create_task(self._report_lost(), name="relay hub: lost runners")
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)

    async def aclose(self) -> None:
        """Leave the relay."""
        if self._inbox.closed:
            return
        self._inbox.close()
        self._notices.close()
        await self._line.outgoing.flush(_FLUSH_SECONDS)
        await self._line.aclose()
        await asyncio.gather(*self._reports)

    # ------------------------------------------------------------------ what the line calls

    async def channels(self, client: Redis) -> list[str]:
        """For the line's own use."""
        return [self._channels.services, self._channels.notices]

    def subscribed(self) -> None:
        """For the line's own use."""
        self._presence.call_roll()
        self._roll = self._line.outgoing.offer(self._channels.runners, self._roll_call)

    def lost(self) -> None:
        """For the line's own use: nothing is known of anybody, so nobody counts as gone."""

    async def while_subscribed(self, client: Redis) -> None:
        """For the line's own use: who does not answer the roll, and who stops to listen, is gone."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close_roll(), name="relay hub: roll call")
            tasks.create_task(self._poll(client), name="relay hub: poll")

    async def _close_roll(self) -> None:
        await asyncio.sleep(self._roll_seconds)
        # An answer that has come, and that nobody has read yet, is an answer.
        await self._line.caught_up()
        for runner_id in self._presence.unanswered():
            _log.warning("relay_runner_silent", runner_id=runner_id, seconds=self._roll_seconds)
            self._lose(runner_id)
        await self._report_lost()

    async def _poll(self, client: Redis) -> None:
        while True:
            here = list(self._presence.here())
            suspects: list[tuple[str, str]] = []
            for start in range(0, len(here), _POLL_CHUNK):
                chunk = here[start : start + _POLL_CHUNK]
                channels = [self._channels.runner(*runner) for runner in chunk]
                async with asyncio.timeout(ANSWER_SECONDS):
                    counts = await client.pubsub_numsub(*channels)
                for runner, (_, subscribers) in zip(chunk, counts, strict=True):
                    if self._presence.polled(*runner, subscribers):
                        suspects.append(runner)
            if suspects:
                # What they said before they ended comes first.
                await self._line.caught_up()
                for runner_id, instance in suspects:
                    if self._presence.instance_of(runner_id) == instance:
                        self._lose(runner_id)
                await self._report_lost()
            await asyncio.sleep(self._poll_seconds)

    async def received(self, channel: str, data: bytes) -> None:
        """For the line's own use."""
        try:
            if channel == self._channels.notices:
                self._hear_notice(data)
            else:
                await self._hear_runner(data)
        except msgspec.DecodeError as error:
            self._junk.ignore(channel, str(error))

    def _hear_notice(self, data: bytes) -> None:
        self._notices.put(wire.decode_notice(decode_notice_frame(data).body), len(data))

    async def _hear_runner(self, data: bytes) -> None:
        frame = decode_to_services(data)
        message = wire.decode_to_service(frame.body) if isinstance(frame, FromRunner) else None
        hello = isinstance(message, RunnerHello)
        if isinstance(message, RunnerHello) and message.runner_id != frame.runner_id:
            raise msgspec.DecodeError(f"runner {frame.runner_id!r} says hello as {message.runner_id!r}")
        async with self._delivery:
            before = self._presence.instance_of(frame.runner_id)
            verdict = self._presence.judge(frame, hello=hello)
            if hello and before not in (None, frame.instance) and verdict is Verdict.PASS_ON:
                _log.warning("relay_runner_started_again", runner_id=frame.runner_id)
            await self._give_out_lost()
            if verdict in (Verdict.PASS_ON, Verdict.PASS_ON_AND_ASK):
                if isinstance(frame, Goodbye):
                    self._lose(frame.runner_id)
                    await self._give_out_lost()
                else:
                    await self._inbox.put((frame.runner_id, message), len(data))
        self._answer(frame, verdict)

    def _answer(self, frame: FromRunner | Goodbye, verdict: Verdict) -> None:
        if isinstance(frame, Goodbye):
            return
        if verdict in (Verdict.ASK, Verdict.PASS_ON_AND_ASK):
            self._ask(frame.runner_id, frame.instance, HelloWanted(self._service))
        elif verdict is Verdict.REPLACED:
            self._ask(frame.runner_id, frame.instance, Replaced(self._service))
        elif verdict is Verdict.TOO_MANY:
            self._junk.ignore(self._channels.services, f"one runner too many: {frame.runner_id!r}")

    # ------------------------------------------------------------------ runners that are gone

    def _lose(self, runner_id: str) -> None:
        if self._presence.lose(runner_id):
            self._lost.append(runner_id)

    async def _report_lost(self) -> None:
        async with self._delivery:
            await self._give_out_lost()

    async def _give_out_lost(self) -> None:
        # Under the lock: behind what was heard of the runner before, ahead of its next hello.
        while self._lost:
            await self._inbox.put((self._lost.pop(0), None))

    def _ask(
        self, runner_id: str, instance: str, frame: HelloWanted | Replaced, *, always: bool = False
    ) -> None:
        """Tell one instance something, but not with every frame that it sends."""
        now = asyncio.get_running_loop().time()
        what = (runner_id, instance, type(frame))
        asked = self._asked.get(what)
        if not always and asked is not None and now - asked < _ASK_SECONDS:
            return
        self._asked[what] = now
        self._asked.move_to_end(what)
        if len(self._asked) > _MOST_ASKED:
            self._asked.popitem(last=False)
        self._line.outgoing.offer(self._channels.runner(runner_id, instance), lambda: encode_frame(frame))

    def _roll_call(self) -> bytes:
        return encode_frame(HelloWanted(self._service))

    def _count(self) -> int:
        self._number += 1
        return self._number
