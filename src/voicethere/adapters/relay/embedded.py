"""The relay of one machine: a Unix-domain stream socket between the session service and its runners.

Knows frames, connections and who says hello first. Does not know what the messages mean to a session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import structlog
import tenacity

from voicethere.adapters.relay.framing import (
    ROLL_CALL,
    FrameTooLarge,
    LinkClosed,
    Outbox,
    check_size,
    read_frame,
)
from voicethere.adapters.relay.inbox import Inbox
from voicethere.adapters.relay.notices import NoticeBox
from voicethere.adapters.relay.paths import listen, short_address
from voicethere.core.ports import RunnerAway
from voicethere.wire import relay as wire
from voicethere.wire.relay import RunnerHello, ServiceNotice, ToRunner, ToService

_log = structlog.get_logger(__name__)

_FLUSH_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


class EmbeddedRelayHub:
    """Implements `RelayHub`. Listens on `path` (mode 0600) from `start` to `aclose`.

    Each runner's link has its own bounded outbox; a runner that does not read for `patience_seconds` loses
    its link, and nobody else waits for it. A second link of one runner replaces the first.

    Example:
        >>> hub = await EmbeddedRelayHub.start(Path("data/relay.sock"))
        >>> async for runner_id, message in hub.messages():
        ...     await hub.send(runner_id, CancelSession(session_id="…"))
    """

    def __init__(self, path: Path, *, patience_seconds: float = 5.0, hello_seconds: float = 5.0) -> None:
        self._path = path
        self._patience_seconds = patience_seconds
        self._hello_seconds = hello_seconds
        self._links: dict[str, Outbox] = {}
        self._inbox: Inbox[tuple[str, ToService | None]] = Inbox()
        self._notices = NoticeBox()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(
        cls, path: Path, *, patience_seconds: float = 5.0, hello_seconds: float = 5.0
    ) -> EmbeddedRelayHub:
        """Listen.

        Raises:
            RelayBusy, RelayPathInvalid, OSError: see `paths.listen`.
        """
        hub = cls(path, patience_seconds=patience_seconds, hello_seconds=hello_seconds)
        listener = listen(path)
        try:
            hub._server = await asyncio.start_unix_server(hub._accept, sock=listener)
        except BaseException:
            listener.close()
            raise
        return hub

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Return once the message is on its way.

        Raises:
            RunnerAway: that runner is not linked, or its link is given up because it does not read.
            FrameTooLarge: (a ValueError) the message is too large for a link.
        """
        outbox = self._links.get(runner_id)
        if outbox is None:
            raise RunnerAway(f"runner {runner_id!r} is not linked")
        try:
            await outbox.put(wire.encode(message))
        except LinkClosed as error:
            raise RunnerAway(f"runner {runner_id!r}: {error}") from error

    def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """For one reader. A runner's messages begin with its `RunnerHello`; all end with `aclose`."""
        return self._inbox.items()

    async def call_roll(self) -> None:
        """Ask every runner that is linked for a fresh hello. One that does not read loses its link for it."""

        async def ask(outbox: Outbox) -> None:
            with contextlib.suppress(LinkClosed):  # its reader says that it is gone
                await outbox.put(ROLL_CALL)

        await asyncio.gather(*(ask(outbox) for outbox in list(self._links.values())))

    async def publish(self, notice: ServiceNotice) -> None:
        """To this service's own `notices`: there is no other on an embedded relay.

        Raises:
            FrameTooLarge: (a ValueError) the notice is too large for a relay.
        """
        data = wire.encode(notice)
        check_size(data)
        self._notices.put(wire.decode_notice(data), len(data))

    def notices(self) -> AsyncIterator[ServiceNotice]:
        """For one reader, until `aclose`. One that falls behind by a thousand loses the newest ones."""
        return self._notices.items()

    @property
    def linked(self) -> bool:
        """Whether runners can reach this service: from `start` to `aclose`."""
        return not self._inbox.closed

    def drop(self, runner_id: str) -> None:
        """Cut a runner's link; it may come back by itself. Harmless where there is none."""
        outbox = self._links.get(runner_id)
        if outbox is not None:
            outbox.abort()

    async def aclose(self) -> None:
        """Close every link and remove the socket."""
        if self._inbox.closed:
            return
        self._inbox.close()
        self._notices.close()
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        await asyncio.gather(
            *(outbox.aclose(flush_seconds=_FLUSH_SECONDS) for outbox in self._links.values())
        )
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        outbox = Outbox(writer, patience_seconds=self._patience_seconds)
        try:
            await self._serve(reader, outbox)
        except (FrameTooLarge, msgspec.DecodeError, OSError) as error:
            _log.warning("relay_link_broken", problem=str(error))
        except asyncio.CancelledError:
            pass  # only `aclose` cancels; asyncio's stream server would log it as a failure
        finally:
            self._connections.discard(connection)
            await outbox.aclose()

    async def _serve(self, reader: asyncio.StreamReader, outbox: Outbox) -> None:
        try:
            async with asyncio.timeout(self._hello_seconds):
                first = await read_frame(reader)
        except TimeoutError:
            _log.warning("relay_link_silent", seconds=self._hello_seconds)
            return
        if first is None:
            return  # somebody looked whether anyone listens
        hello = wire.decode_to_service(first)
        if not isinstance(hello, RunnerHello):
            _log.warning("relay_link_without_hello", message=type(hello).__name__)
            return
        runner_id = hello.runner_id
        replaced = self._links.get(runner_id)
        self._links[runner_id] = outbox
        if replaced is not None:
            replaced.abort()
        try:
            await self._inbox.put((runner_id, hello))
            while (frame := await read_frame(reader)) is not None:
                # The old link of a runner that has a new one must not speak for it any more.
                if self._links.get(runner_id) is not outbox:
                    return
                message = wire.decode_to_service(frame)
                if isinstance(message, RunnerHello) and message.runner_id != runner_id:
                    _log.warning("relay_link_renamed", runner_id=runner_id)
                    return
                await self._inbox.put((runner_id, message), len(frame))
        finally:
            if self._links.get(runner_id) is outbox:
                del self._links[runner_id]
                if not self._inbox.closed:
                    await self._inbox.put((runner_id, None))


class EmbeddedRunnerLink:
    """Implements `RunnerLink`. Reconnects by itself, for as long as it is open, with growing pauses.

    `hello` is called at every connection and roll call: it names the runner, its capacity and the sessions
    that it hosts at that moment. While the service is away, or does not read for `patience_seconds`,
    messages are dropped; the next hello tells the service what it missed.

    Example:
        >>> link = await EmbeddedRunnerLink.start(path, hello=runner.hello)
        >>> await link.send(SessionAccepted(session_id="…"))
    """

    def __init__(
        self,
        path: Path,
        *,
        hello: Callable[[], RunnerHello],
        patience_seconds: float = 5.0,
        longest_pause_seconds: float = 1.0,
    ) -> None:
        self._path = path
        self._hello = hello
        self._patience_seconds = patience_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._inbox: Inbox[ToRunner] = Inbox()
        self._outbox: Outbox | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        path: Path,
        *,
        hello: Callable[[], RunnerHello],
        patience_seconds: float = 5.0,
        longest_pause_seconds: float = 1.0,
    ) -> EmbeddedRunnerLink:
        """Begin to connect; returns at once, whether or not the service is there yet."""
        link = cls(
            path, hello=hello, patience_seconds=patience_seconds, longest_pause_seconds=longest_pause_seconds
        )
        link._task = asyncio.create_task(link._stay_linked(), name="relay link")
        return link

    @property
    def linked(self) -> bool:
        """Whether the service is there now."""
        return self._outbox is not None

    async def send(self, message: ToService) -> None:
        """Dropped while the service is away.

        Raises:
            FrameTooLarge: (a ValueError) the message is too large for a link.
        """
        outbox = self._outbox
        if outbox is None:
            _log.debug("relay_message_dropped", message=type(message).__name__)
            return
        with contextlib.suppress(LinkClosed):
            await outbox.put(wire.encode(message))

    def messages(self) -> AsyncIterator[ToRunner]:
        """For one reader, until `aclose`; goes on over lost links."""
        return self._inbox.items()

    async def aclose(self) -> None:
        """Send what is on its way (a second at most) and close the link for good."""
        self._inbox.close()
        if self._outbox is not None:
            await self._outbox.aclose(flush_seconds=_FLUSH_SECONDS)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _stay_linked(self) -> None:
        pauses = tenacity.wait_exponential(
            multiplier=_PAUSE_SECONDS, max=self._longest_pause_seconds
        ) + tenacity.wait_random(0, _PAUSE_SECONDS)
        while not self._inbox.closed:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(OSError), wait=pauses, before_sleep=self._report
            ):
                with attempt:
                    reader, writer = await self._connect()
            await self._use(reader, writer)
            # A service that takes connections only to drop them must not be hammered.
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        with short_address(self._path) as address:
            return await asyncio.open_unix_connection(address)

    def _report(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:  # once per outage, not once per try
            problem = state.outcome.exception() if state.outcome else None
            _log.warning("relay_away", problem=str(problem))

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outbox = Outbox(writer, patience_seconds=self._patience_seconds)
        try:
            # Nothing else can run between these three: no message gets lost or comes before the hello.
            hello = wire.encode(self._hello())
            await outbox.put(hello)
            self._outbox = outbox
            while (frame := await read_frame(reader)) is not None:
                if frame == ROLL_CALL:
                    await outbox.put(wire.encode(self._hello()))
                    continue
                await self._inbox.put(wire.decode_to_runner(frame), len(frame))
        except (FrameTooLarge, LinkClosed, msgspec.DecodeError, OSError) as error:
            _log.warning("relay_link_broken", problem=str(error))
        except Exception:
            _log.exception("relay_link_failed")  # the link must survive whatever a hello raises
        finally:
            self._outbox = None
            await outbox.aclose()
