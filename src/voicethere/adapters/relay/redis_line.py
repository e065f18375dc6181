"""One end's line to Redis: a subscription, and a way to publish, given up and renewed together.

Knows Redis and time; does not know what is said. Redis counts as away once it closes, refuses, or answers
nothing for three seconds (a paused process, a partition): then everything on its way is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

import structlog
import tenacity
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import ResponseError

from voicethere.adapters.relay.redis_client import ANSWER_SECONDS, REDIS_TROUBLE, open_client
from voicethere.adapters.relay.redis_outgoing import Outgoing

_log = structlog.get_logger(__name__)

_PING_SECONDS = 1.0
_MOST_UNANSWERED = 3
_SUBSCRIBE_SECONDS = 4.0
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 1.0
_CAUGHT_UP = b"caught-up:"


class LineUser(Protocol):
    """Who has a line. All of it runs in the line's own tasks."""

    async def channels(self, client: Redis) -> list[str]:
        """What to subscribe to. Called at every connection."""

    def subscribed(self) -> None:
        """The subscription is there; what is offered to `outgoing` now goes before anything else."""

    async def while_subscribed(self, client: Redis) -> None:
        """Runs until the line is given up, which cancels it."""

    async def received(self, channel: str, data: bytes) -> None:
        """One payload. While this waits, nothing further is received."""

    def lost(self) -> None:
        """The line is given up; it will be renewed."""


class RedisLine:
    """Stays up by itself from `start` to `aclose`, with growing pauses where Redis is away."""

    def __init__(self, url: str, user: LineUser, *, patience_seconds: float = 5.0) -> None:
        self._client = open_client(url)
        self._user = user
        self._delivering = False
        self._unanswered = 0
        self._marks: dict[bytes, asyncio.Event] = {}
        self._next_mark = 0
        self._pubsub: PubSub | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.outgoing = Outgoing(patience_seconds=patience_seconds)

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._stay_up(), name="relay line")

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Return once the subscription is there."""
        await self._up.wait()

    async def caught_up(self) -> None:
        """Return once everything that Redis had for this line before now was passed to `received`."""
        if self._pubsub is None:
            return
        self._next_mark += 1
        mark = _CAUGHT_UP + str(self._next_mark).encode()
        reached = self._marks[mark] = asyncio.Event()
        try:
            await self._pubsub.ping(mark)
            await reached.wait()
        finally:
            self._marks.pop(mark, None)

    async def aclose(self) -> None:
        """Give the line up for good; a Redis that does not answer costs a second at most."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # again and again: see `_within`
            await asyncio.wait([task], timeout=_CLOSE_SECONDS)
        with contextlib.suppress(*REDIS_TROUBLE):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.aclose()

    async def _stay_up(self) -> None:
        pauses = tenacity.wait_exponential(
            multiplier=_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS
        ) + tenacity.wait_random(0, _PAUSE_SECONDS)
        while True:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(Exception), wait=pauses, before_sleep=self._report
            ):
                with attempt:
                    pubsub = await self._subscribe()
            try:
                await self._use(pubsub)
            except* REDIS_TROUBLE as problems:
                _log.warning("relay_line_broken", problem=str(_first(problems)))
            except* Exception:
                _log.exception("relay_line_failed")  # the line must survive whatever its user raises
            # A Redis that takes connections only to drop them must not be hammered.
            await asyncio.sleep(_PAUSE_SECONDS)

    def _report(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:  # once per outage, not once per try
            problem = state.outcome.exception() if state.outcome else None
            _log.warning("relay_away", problem=str(problem))

    async def _subscribe(self) -> PubSub:
        pubsub = self._client.pubsub()
        try:
            await _within(_SUBSCRIBE_SECONDS, self._subscribe_as_asked(pubsub))
        except BaseException:
            await _given_up(pubsub)
            raise
        return pubsub

    async def _subscribe_as_asked(self, pubsub: PubSub) -> None:
        await self._subscribe_to(pubsub, await self._user.channels(self._client))

    @staticmethod
    async def _subscribe_to(pubsub: PubSub, channels: list[str]) -> None:
        # One command for all: its confirmations come before any message.
        await pubsub.subscribe(*channels)
        for _ in channels:
            confirmed = await pubsub.get_message(timeout=None)
            if confirmed is None or confirmed["type"] != "subscribe":
                raise RedisAway("the subscription was not confirmed")

    async def _use(self, pubsub: PubSub) -> None:
        try:
            self._pubsub = pubsub
            self._unanswered = 0
            self.outgoing.open()
            self._user.subscribed()
            self._up.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(pubsub), name="relay line: read")
                tasks.create_task(self._publish(), name="relay line: publish")
                tasks.create_task(self._ping(pubsub), name="relay line: ping")
                tasks.create_task(self._user.while_subscribed(self._client), name="relay line: user")
        finally:
            self._up.clear()
            self._pubsub = None
            self.outgoing.close()
            self._user.lost()
            await _given_up(pubsub)
            with contextlib.suppress(*REDIS_TROUBLE):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    # Whatever was sent on a connection that is given up must not be answered on it later.
                    await self._client.connection_pool.disconnect()

    async def _read(self, pubsub: PubSub) -> None:
        while True:
            message: Mapping[str, Any] | None = await pubsub.get_message(timeout=None)
            self._unanswered = 0
            if message is None:
                continue
            if message["type"] == "message":
                self._delivering = True
                try:
                    await self._user.received(message["channel"].decode("utf-8", "replace"), message["data"])
                finally:
                    self._delivering = False
                self._unanswered = 0
            elif message["type"] == "pong":
                reached = self._marks.get(message["data"])
                if reached is not None:
                    reached.set()
            elif message["type"] == "subscribe":
                # The client renewed the subscription by itself: nobody knows what was said meanwhile.
                raise RedisAway("the subscription was interrupted")

    async def _ping(self, pubsub: PubSub) -> None:
        while True:
            # Pings are counted, not seconds: after a pause of this very process, what Redis said meanwhile
            # waits to be read. And a user who is slow to take what came is no silence of Redis.
            if self._unanswered >= _MOST_UNANSWERED and not self._delivering:
                raise RedisAway(f"Redis left {self._unanswered} pings unanswered")
            async with asyncio.timeout(_MOST_UNANSWERED * _PING_SECONDS):
                await pubsub.ping()
            self._unanswered += 1
            await asyncio.sleep(_PING_SECONDS)

    async def _publish(self) -> None:
        while True:
            parcels = await self.outgoing.take()
            pipeline = self._client.pipeline(transaction=False)
            for parcel in parcels:
                pipeline.publish(parcel.channel, parcel.data)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    heard = await pipeline.execute()
            except ResponseError as error:
                raise RedisAway(f"Redis refused to publish: {error}") from error
            self.outgoing.settle(heard)


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Do it, or give it up: also where it forgets that it was cancelled, as `wait_for` of Python 3.11 may.

    Raises:
        TimeoutError: it is not done after so many seconds.
    """
    task = asyncio.create_task(work, name="relay line: a step")
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        await asyncio.wait([task], timeout=_CLOSE_SECONDS)
        raise TimeoutError
    task.result()


async def _given_up(pubsub: PubSub) -> None:
    with contextlib.suppress(*REDIS_TROUBLE):
        await _within(_CLOSE_SECONDS, pubsub.aclose())  # type: ignore[no-untyped-call]


def _first(problems: BaseExceptionGroup[BaseException]) -> BaseException:
    problem = problems.exceptions[0]
    return _first(problem) if isinstance(problem, BaseExceptionGroup) else problem
