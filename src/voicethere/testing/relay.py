"""The relay in memory: both ends in one process, with cuts on demand. Passes the port's contract tests.

Messages go through the codec, as on a real link, so that a test cannot pass what a wire would not carry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from voicethere.core.ports import RunnerAway
from voicethere.wire import relay as wire
from voicethere.wire.relay import RunnerHello, ToRunner, ToService

_CLOSED = object()


class InMemoryRelayHub:
    """Implements `RelayHub`.

    Example:
        >>> hub = InMemoryRelayHub()
        >>> link = hub.new_link(lambda: RunnerHello(runner_id="r", capacity=2))
    """

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[object] = asyncio.Queue()
        self._links: dict[str, InMemoryRunnerLink] = {}
        self._closed = False

    def new_link(self, hello: Callable[[], RunnerHello], *, linked: bool = True) -> InMemoryRunnerLink:
        """A runner's end; says hello at once unless `linked` is false."""
        link = InMemoryRunnerLink(self, hello)
        if linked:
            link.relink()
        return link

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Raises RunnerAway where that runner is not linked."""
        link = self._links.get(runner_id)
        if link is None:
            raise RunnerAway(f"runner {runner_id!r} is not linked")
        link.receive(wire.decode_to_runner(wire.encode(message)))

    async def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """For one reader; ends with `aclose`."""
        while (item := await self._inbox.get()) is not _CLOSED:
            yield item  # type: ignore[misc]  # only pairs and the end are ever put

    def drop(self, runner_id: str) -> None:
        """Cut a runner's link; it stays cut until its `relink`."""
        link = self._links.pop(runner_id, None)
        if link is not None and not self._closed:
            self._inbox.put_nowait((runner_id, None))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._links.clear()
            self._inbox.put_nowait(_CLOSED)

    def attach(self, link: InMemoryRunnerLink, hello: RunnerHello) -> None:
        """For a link's own use."""
        if not self._closed:
            self._links[hello.runner_id] = link
            self._inbox.put_nowait((hello.runner_id, hello))

    def deliver(self, link: InMemoryRunnerLink, message: ToService) -> None:
        """For a link's own use: from a runner that is linked; dropped otherwise."""
        for runner_id, linked in self._links.items():
            if linked is link:
                self._inbox.put_nowait((runner_id, wire.decode_to_service(wire.encode(message))))
                return

    def detach(self, link: InMemoryRunnerLink) -> None:
        """For a link's own use."""
        for runner_id, linked in list(self._links.items()):
            if linked is link:
                self.drop(runner_id)


class InMemoryRunnerLink:
    """Implements `RunnerLink`. Made by `InMemoryRelayHub.new_link`; reconnects only when told to."""

    def __init__(self, hub: InMemoryRelayHub, hello: Callable[[], RunnerHello]) -> None:
        self._hub = hub
        self._hello = hello
        self._inbox: asyncio.Queue[ToRunner | None] = asyncio.Queue()

    def relink(self) -> None:
        """Say hello (again)."""
        self._hub.attach(self, self._hello())

    def receive(self, message: ToRunner) -> None:
        """For the hub's own use."""
        self._inbox.put_nowait(message)

    async def send(self, message: ToService) -> None:
        """Dropped while the link is cut."""
        self._hub.deliver(self, message)

    async def messages(self) -> AsyncIterator[ToRunner]:
        """For one reader; ends with `aclose`."""
        while (message := await self._inbox.get()) is not None:
            yield message

    async def aclose(self) -> None:
        self._hub.detach(self)
        self._inbox.put_nowait(None)
