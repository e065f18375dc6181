"""Which adapter stands behind each port: files of this machine, or servers that several machines share.

The one place that knows both. Everything is imported when it is needed: a runner has no database in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog
import tenacity

from voicethere.adapters.telemetry.observed_queue import ObservedErrorQueue
from voicethere.cli.configuration import Configuration
from voicethere.cli.layout import DataLayout
from voicethere.cli.producer_queue import Producer
from voicethere.core.ports import BundleStore, ErrorQueuePort, Lease, RelayHub, RunnerLink
from voicethere.wire.relay import RunnerHello

if TYPE_CHECKING:
    from voicethere.adapters.store import Store

BUSY_SECONDS = 1.0
"""How long a put waits for a queue that somebody holds, before it is spooled: a session's end waits too."""

Result = TypeVar("Result")
_log = structlog.get_logger(__name__)


class LinkedRunnerLink(RunnerLink, Protocol):
    """What every link of ours can say besides."""

    @property
    def linked(self) -> bool:
        """Whether services hear this runner now."""


class Engines:
    """Makes the adapters of one process; whoever asks for one closes it."""

    def __init__(self, configuration: Configuration, layout: DataLayout, instance: str) -> None:
        self._configuration = configuration
        self._layout = layout
        self._instance = instance

    @property
    def distributed(self) -> bool:
        """Whether other machines work on the same engines."""
        return self._configuration.distributed

    async def store(self) -> Store:
        """The database, brought up to date. One that is a server is waited for.

        Raises:
            StoreUnavailable: the database of this machine cannot be used.
            ValueError: the URL is of none, or its driver is missing.
        """
        from voicethere.adapters.store import Store

        url = self._configuration.database_url or self._layout.database_url
        return await self.while_starting(lambda: Store.open(url))

    async def while_starting(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """What `action` gives. A database that is a server is waited for: it may go away again at any moment.

        Raises:
            StoreUnavailable: the database of this machine cannot be used.
        """
        from voicethere.adapters.store import StoreUnavailable

        async def attempt() -> Result:
            return await action()

        if not self.distributed:
            return await attempt()
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2.0) + tenacity.wait_random(0, 0.1),
            before_sleep=_say_waiting,
        )
        return await attempts(attempt)

    def queue(self, *, busy_seconds: float = 5.0) -> ErrorQueuePort:
        """The `session-errors` queue; `busy_seconds` is how long a file that somebody holds is waited for."""
        redis_url = self._configuration.redis_url
        if redis_url is None:
            from voicethere.adapters.queue import EmbeddedErrorQueue

            return EmbeddedErrorQueue(self._layout.queue, busy_seconds=busy_seconds)
        from voicethere.adapters.queue.redis_stream import RedisErrorQueue

        return RedisErrorQueue(redis_url, prefix=self._configuration.redis_prefix, consumer=self._instance)

    def producer(self, spool: Path) -> Producer:
        """The queue as a producer uses it; what it cannot take now waits in the folder `spool`."""
        return Producer(ObservedErrorQueue(self.queue(busy_seconds=BUSY_SECONDS)), spool)

    async def hub(self) -> RelayHub:
        """A session service's end of the relay.

        Raises:
            OSError: another session service of this machine listens on the relay's socket.
        """
        redis_url = self._configuration.redis_url
        if redis_url is None:
            from voicethere.adapters.relay.embedded import EmbeddedRelayHub

            return await EmbeddedRelayHub.start(self._layout.relay)
        from voicethere.adapters.relay.redis import RedisRelayHub

        return await RedisRelayHub.start(redis_url, prefix=self._configuration.redis_prefix)

    async def link(self, runner_id: str, hello: Callable[[], RunnerHello]) -> LinkedRunnerLink:
        """A runner's end of the relay."""
        redis_url = self._configuration.redis_url
        if redis_url is None:
            from voicethere.adapters.relay.embedded import EmbeddedRunnerLink

            return await EmbeddedRunnerLink.start(self._layout.relay, hello=hello)
        from voicethere.adapters.relay.redis_link import RedisRunnerLink

        return await RedisRunnerLink.start(
            redis_url, prefix=self._configuration.redis_prefix, runner_id=runner_id, hello=hello
        )

    def lease(self) -> Lease:
        """The right to coordinate."""
        redis_url = self._configuration.redis_url
        if redis_url is None:
            from voicethere.adapters.relay.lease_file import EmbeddedLease

            return EmbeddedLease(self._layout.lease)
        from voicethere.adapters.relay.redis_lease import RedisLease

        return RedisLease(redis_url, prefix=self._configuration.redis_prefix)

    def bundles(self) -> BundleStore:
        """Where uploaded bundles are.

        Raises:
            ValueError: the place cannot be used as it is written.
        """
        from voicethere.adapters.bundles import open_bundle_store

        if self._configuration.bundles_url is None and self.distributed:
            _log.warning(
                "bundles_on_this_machine",
                folder=str(self._layout.bundles),
                remedy="all control planes and runners must see the same bundles: set bundles_url to s3://…, "
                "or to a folder that all of them mount",
            )
        return open_bundle_store(self._configuration.bundles_url or str(self._layout.bundles))


def _say_waiting(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    _log.warning("database_waited_for", reason=str(error), attempt=state.attempt_number)
