"""One end of the relay for several roles of one process: each has a view of it that reads for itself.

Knows nothing of what the messages mean. Whoever reads a view must read on: all wait for the slowest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from voicethere.adapters.relay.inbox import Inbox
from voicethere.adapters.relay.notices import NoticeBox
from voicethere.core.ports import RelayHub
from voicethere.wire.relay import ServiceNotice, ToRunner, ToService


class HubView:
    """Implements `RelayHub`. `aclose` closes the view, not the hub behind it."""

    def __init__(self, hub: RelayHub, wanted: Callable[[ToService | None], bool]) -> None:
        self._hub = hub
        self._wanted = wanted
        self._inbox: Inbox[tuple[str, ToService | None]] = Inbox()
        self._notices = NoticeBox()

    @property
    def linked(self) -> bool:
        """Whether the relay itself works."""
        return self._hub.linked

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Raises RunnerAway where that runner is not linked."""
        await self._hub.send(runner_id, message)

    def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """What the hub hears, as far as this view wants it; for one reader, until `aclose`."""
        return self._inbox.items()

    async def call_roll(self) -> None:
        """Have every runner that is linked say hello (again): every view hears it."""
        await self._hub.call_roll()

    async def publish(self, notice: ServiceNotice) -> None:
        """Tell every service on this relay, the other views included."""
        await self._hub.publish(notice)

    def notices(self) -> AsyncIterator[ServiceNotice]:
        """What services publish; for one reader, until `aclose`."""
        return self._notices.items()

    def drop(self, runner_id: str) -> None:
        """Cut a runner's link, for all views."""
        self._hub.drop(runner_id)

    async def aclose(self) -> None:
        """Hear nothing more."""
        self._inbox.close()
        self._notices.close()

    async def hear(self, heard: tuple[str, ToService | None]) -> None:
        """For the shared hub's own use."""
        if self._wanted(heard[1]):
            await self._inbox.put(heard)

    def notice(self, notice: ServiceNotice) -> None:
        """For the shared hub's own use."""
        self._notices.put(notice, 0)


class SharedHub:
    """Gives what one hub hears to every view; one that is made after `start` hears what comes from then on.

    Example:
        >>> shared = SharedHub(await EmbeddedRelayHub.start(path))
        >>> service, gateway = shared.view(not_of_chats), shared.view(of_chats)
        >>> shared.start()
    """

    def __init__(self, hub: RelayHub) -> None:
        self._hub = hub
        self._views: list[HubView] = []
        self._tasks: list[asyncio.Task[None]] = []

    def view(self, wanted: Callable[[ToService | None], bool]) -> HubView:
        """One more reader, of the messages that are `wanted` (None: a runner is gone) and of all notices."""
        view = HubView(self._hub, wanted)
        self._views.append(view)
        return view

    def start(self) -> None:
        """Begin to read the hub; what it has heard before is not lost."""
        self._tasks = [
            asyncio.create_task(self._pass_messages_on(), name="shared relay messages"),
            asyncio.create_task(self._pass_notices_on(), name="shared relay notices"),
        ]

    async def aclose(self) -> None:
        """Close the views and the hub."""
        for view in self._views:
            await view.aclose()
        await self._hub.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pass_messages_on(self) -> None:
        async for heard in self._hub.messages():
            for view in list(self._views):
                await view.hear(heard)

    async def _pass_notices_on(self) -> None:
        async for notice in self._hub.notices():
            for view in self._views:
                view.notice(notice)
