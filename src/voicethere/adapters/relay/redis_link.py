"""The runner's end of the relay on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog
from redis.asyncio import Redis

from voicethere.adapters.relay.framing import LinkClosed, check_size
from voicethere.adapters.relay.inbox import Inbox
from voicethere.adapters.relay.redis_client import check_name
from voicethere.adapters.relay.redis_frames import (
    Channels,
    FromRunner,
    FromService,
    Goodbye,
    HelloWanted,
    decode_to_one_runner,
    encode_frame,
)
from voicethere.adapters.relay.redis_junk import Junk
from voicethere.adapters.relay.redis_line import RedisLine
from voicethere.wire import relay as wire
from voicethere.wire.relay import RunnerHello, ToRunner, ToService

_log = structlog.get_logger(__name__)

_FLUSH_SECONDS = 1.0
_HELLO_PAUSE_SECONDS = 0.2
_MOST_SERVICES = 256


class RedisRunnerLink:
    """Implements `RunnerLink`. Reconnects by itself, for as long as it is open, with growing pauses.

    `hello` is called whenever the subscription begins and whenever a service asks. Where two processes run
    with one `runner_id`, services listen to the one that began last; the other says so in its log, and is
    not `linked` until they turn to it again.

    Example:
        >>> link = await RedisRunnerLink.start(url, runner_id="runner-1", hello=runner.hello)
        >>> await link.send(SessionAccepted(session_id="…"))
    """

    def __init__(self, url: str, *, prefix: str, runner_id: str, hello: Callable[[], RunnerHello]) -> None:
        self._runner_id = check_name("a runner's id", runner_id)
        self._instance = secrets.token_hex(8)
        self._channels = Channels(check_name("the relay's prefix", prefix))
        self._own_channel = self._channels.runner(runner_id, self._instance)
        self._hello = hello
        self._line = RedisLine(url, self)
        self._inbox: Inbox[ToRunner] = Inbox()
        self._junk = Junk()
        self._born: int | None = None
        self._number = 0
        self._replaced = False
        self._hello_wanted = asyncio.Event()
        self._heard: OrderedDict[str, int] = OrderedDict()

    @classmethod
    async def start(
        cls, url: str, *, runner_id: str, hello: Callable[[], RunnerHello], prefix: str = "voicethere"
    ) -> RedisRunnerLink:
        """Begin to connect; returns at once, whether or not Redis is there.

        Raises:
            RelayUrlInvalid, ValueError: the address, the prefix or the id cannot be used.
        """
        link = cls(url, prefix=prefix, runner_id=runner_id, hello=hello)
        link._line.start()
        return link

    @property
    def linked(self) -> bool:
        """Whether Redis is there now, and no other process has taken this runner's place."""
        return self._line.up and not self._replaced

    async def wait_linked(self) -> None:
        """Return once Redis is there."""
        await self._line.wait_up()

    @property
    def junk(self) -> int:
        """How many messages were ignored because they could not be understood."""
        return self._junk.count

    async def send(self, message: ToService) -> None:
        """Dropped while Redis is away, or takes nothing for seconds: the next hello tells what was missed.

        Raises:
            FrameTooLarge: (a ValueError) the message is too large for a relay.
        """
        body = wire.encode(message)
        check_size(body)
        try:
            await self._line.outgoing.put(self._channels.services, lambda: self._frame(body))
        except LinkClosed:
            _log.debug("relay_message_dropped", message=type(message).__name__)
            self._hello_wanted.set()

    def messages(self) -> AsyncIterator[ToRunner]:
        """For one reader, until `aclose`; goes on over lost links."""
        return self._inbox.items()

    async def aclose(self) -> None:
        """Send what is on its way (a second at most), say goodbye, and close the link for good."""
        if self._inbox.closed:
            return
        self._inbox.close()
        with contextlib.suppress(LinkClosed, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await (await self._line.outgoing.put(self._channels.services, self._goodbye))
        await self._line.aclose()

    # ------------------------------------------------------------------ what the line calls

    async def channels(self, client: Redis) -> list[str]:
        """For the line's own use."""
        if self._born is None:
            # Redis' own clock: it orders the lives of a runner that was started on different machines.
            seconds, microseconds = await client.time()
            self._born = int(seconds) * 1_000_000 + int(microseconds)
        return [self._own_channel, self._channels.runners]

    def subscribed(self) -> None:
        """For the line's own use: nothing is said before the hello."""
        self._say_hello()

    def lost(self) -> None:
        """For the line's own use: there is no such thing as a message for later."""

    async def while_subscribed(self, client: Redis) -> None:
        """For the line's own use: answers those who ask for a hello, all at once."""
        while True:
            await self._hello_wanted.wait()
            if not self._say_hello():
                await asyncio.sleep(_HELLO_PAUSE_SECONDS)

    async def received(self, channel: str, data: bytes) -> None:
        """For the line's own use."""
        try:
            frame = decode_to_one_runner(data)
            if isinstance(frame, HelloWanted):
                if channel == self._own_channel:
                    self._replaced = False
                self._hello_wanted.set()
            elif isinstance(frame, FromService):
                message = wire.decode_to_runner(frame.body)
                if self._is_new(frame):
                    await self._inbox.put(message, len(data))
            elif not self._replaced:
                self._replaced = True
                _log.error("relay_runner_replaced", runner_id=self._runner_id, told_by=frame.service)
        except msgspec.DecodeError as error:
            self._junk.ignore(channel, str(error))

    def _is_new(self, frame: FromService) -> bool:
        """A service that gave up a connection may be heard on it once more, behind what it said later."""
        if frame.number <= self._heard.get(frame.instance, -1):
            return False
        self._heard[frame.instance] = frame.number
        self._heard.move_to_end(frame.instance)
        if len(self._heard) > _MOST_SERVICES:
            self._heard.popitem(last=False)
        return True

    def _say_hello(self) -> bool:
        """Whether it is on its way; otherwise it stays wanted."""
        try:
            said = self._line.outgoing.offer(
                self._channels.services, lambda: self._frame(wire.encode(self._hello()))
            )
        except Exception:
            _log.exception("relay_hello_failed")  # the link must survive whatever a hello raises
            said = None
        if said is None:
            self._hello_wanted.set()
            return False
        self._hello_wanted.clear()
        return True

    def _frame(self, body: bytes) -> bytes:
        return encode_frame(FromRunner(self._runner_id, self._born or 0, self._instance, self._count(), body))

    def _goodbye(self) -> bytes:
        return encode_frame(Goodbye(self._runner_id, self._born or 0, self._instance, self._count()))

    def _count(self) -> int:
        self._number += 1
        return self._number
