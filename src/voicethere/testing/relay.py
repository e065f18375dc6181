"""The relay in memory: all ends in one process, with cuts on demand. Passes the port's contract tests.

Messages go through the codec, as on a real link, so that a test cannot pass what a wire would not carry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from voicethere.core.ports import RunnerAway
from voicethere.wire import relay as wire
from voicethere.wire.relay import RunnerHello, ServiceNotice, ToRunner, ToService


class InMemoryRelay:
    """What several session services and runners share: every hub hears every link, and every other hub.

    Example:
        >>> relay = InMemoryRelay()
        >>> one, other = relay.new_hub(), relay.new_hub()
        >>> link = relay.new_link(lambda: RunnerHello(runner_id="r", capacity=2))
    """

    def __init__(self) -> None:
        self._hubs: list[InMemoryRelayHub] = []
        self._links: list[InMemoryRunnerLink] = []

    def new_hub(self) -> InMemoryRelayHub:
        """Another session service's end; hears a hello of every runner that is linked."""
        hub = InMemoryRelayHub(self)
        for link in self._links:
            hub.attach(link, link.hello())
        return hub

    def new_link(self, hello: Callable[[], RunnerHello], *, linked: bool = True) -> InMemoryRunnerLink:
        """A runner's end; says hello at once unless `linked` is false."""
        link = InMemoryRunnerLink(self, hello)
        if linked:
            link.relink()
        return link

    @property
    def hubs(self) -> list[InMemoryRelayHub]:
        """Those that are open."""
        return list(self._hubs)

    def join(self, hub: InMemoryRelayHub) -> None:
        """For a hub's own use."""
        self._hubs.append(hub)

    def leave(self, hub: InMemoryRelayHub) -> None:
        """For a hub's own use."""
        if hub in self._hubs:
            self._hubs.remove(hub)

    def attach(self, link: InMemoryRunnerLink) -> None:
        """For a link's own use: it says hello to every hub."""
        if link not in self._links:
            self._links.append(link)
        for hub in self._hubs:
            hub.attach(link, link.hello())

    def detach(self, link: InMemoryRunnerLink) -> None:
        """For a link's own use: it is gone, for every hub."""
        if link in self._links:
            self._links.remove(link)
        for hub in self._hubs:
            hub.detach(link)

    def call_roll(self) -> None:
        """For a hub's own use: every link says hello to every hub."""
        for link in list(self._links):
            self.attach(link)


class InMemoryRelayHub:
    """Implements `RelayHub`: one on a relay of its own, or one of several (`InMemoryRelay.new_hub`).

    Example:
        >>> hub = InMemoryRelayHub()
        >>> link = hub.new_link(lambda: RunnerHello(runner_id="r", capacity=2))
    """

    def __init__(self, relay: InMemoryRelay | None = None) -> None:
        self._relay = relay if relay is not None else InMemoryRelay()
        self._inbox: asyncio.Queue[tuple[str, ToService | None] | None] = asyncio.Queue()
        self._notices: asyncio.Queue[ServiceNotice | None] = asyncio.Queue()
        self._links: dict[str, InMemoryRunnerLink] = {}
        self._closed = False
        self._relay.join(self)

    @property
    def linked(self) -> bool:
        """From the beginning to `aclose`."""
        return not self._closed

    def new_link(self, hello: Callable[[], RunnerHello], *, linked: bool = True) -> InMemoryRunnerLink:
        """A runner's end; says hello at once unless `linked` is false."""
        return self._relay.new_link(hello, linked=linked)

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Raises RunnerAway where that runner is not linked."""
        link = self._links.get(runner_id)
        if link is None:
            raise RunnerAway(f"runner {runner_id!r} is not linked")
        link.receive(wire.decode_to_runner(wire.encode(message)))

    async def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """For one reader; ends with `aclose`."""
        while (item := await self._inbox.get()) is not None:
            yield item
        self._inbox.put_nowait(None)  # whoever reads on after the end finds it too

    async def call_roll(self) -> None:
        """Every runner that is linked says hello again, to every hub of the relay."""
        if not self._closed:
            self._relay.call_roll()

    async def publish(self, notice: ServiceNotice) -> None:
        """To the notices of every hub of the relay, this one's included."""
        if self._closed:
            return
        data = wire.encode(notice)
        for hub in self._relay.hubs:
            hub.notify(wire.decode_notice(data))

    async def notices(self) -> AsyncIterator[ServiceNotice]:
        """For one reader; ends with `aclose`."""
        while (notice := await self._notices.get()) is not None:
            yield notice
        self._notices.put_nowait(None)

    def drop(self, runner_id: str) -> None:
        """Cut a runner's link to this hub; it stays cut until its `relink` or a roll call."""
        link = self._links.pop(runner_id, None)
        if link is not None and not self._closed:
            self._inbox.put_nowait((runner_id, None))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._relay.leave(self)
            self._links.clear()
            self._inbox.put_nowait(None)
            self._notices.put_nowait(None)

    def attach(self, link: InMemoryRunnerLink, hello: RunnerHello) -> None:
        """For the relay's own use."""
        self._links[hello.runner_id] = link
        self._inbox.put_nowait((hello.runner_id, hello))

    def deliver(self, link: InMemoryRunnerLink, data: bytes) -> None:
        """For a link's own use: from a runner that is linked; dropped otherwise."""
        for runner_id, linked in self._links.items():
            if linked is link:
                self._inbox.put_nowait((runner_id, wire.decode_to_service(data)))
                return

    def hears(self, link: InMemoryRunnerLink) -> bool:
        """Whether that link is known here, and was not cut."""
        return link in self._links.values()

    def notify(self, notice: ServiceNotice) -> None:
        """For another hub's own use."""
        self._notices.put_nowait(notice)

    def detach(self, link: InMemoryRunnerLink) -> None:
        """For the relay's own use."""
        for runner_id, linked in list(self._links.items()):
            if linked is link:
                self.drop(runner_id)


class InMemoryRunnerLink:
    """Implements `RunnerLink`. Made by `new_link` of a relay or a hub; reconnects only when told to."""

    def __init__(self, relay: InMemoryRelay, hello: Callable[[], RunnerHello]) -> None:
        self._relay = relay
        self.hello = hello
        self._inbox: asyncio.Queue[ToRunner | None] = asyncio.Queue()

    @property
    def linked(self) -> bool:
        """Whether a hub hears it now."""
        return any(hub.hears(self) for hub in self._relay.hubs)

    def relink(self) -> None:
        """Say hello (again)."""
        self._relay.attach(self)

    def receive(self, message: ToRunner) -> None:
        """For a hub's own use."""
        self._inbox.put_nowait(message)

    async def send(self, message: ToService) -> None:
        """Dropped where the link is cut."""
        data = wire.encode(message)
        for hub in self._relay.hubs:
            hub.deliver(self, data)

    async def messages(self) -> AsyncIterator[ToRunner]:
        """For one reader; ends with `aclose`."""
        while (message := await self._inbox.get()) is not None:
            yield message
        self._inbox.put_nowait(None)

    async def aclose(self) -> None:
        self._relay.detach(self)
        self._inbox.put_nowait(None)


class InMemoryLeases:
    """One right to coordinate, and those who want it; time is what the test says it is.

    Example:
        >>> leases = InMemoryLeases()
        >>> one, other = leases.new_lease(), leases.new_lease()
        >>> await one.hold(), await other.hold()
        (True, False)
    """

    def __init__(self, *, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self.holder: InMemoryLease | None = None
        self.available = True
        """False: what keeps the lease is away, nobody can tell whose it is."""

    def new_lease(self) -> InMemoryLease:
        """Another process's claim."""
        return InMemoryLease(self)

    def expire(self) -> None:
        """What happens to a holder that hangs: it finds out at its next `hold`, and others may take it."""
        if self.holder is not None:
            self.holder.lapsed = True
            self.holder = None


class InMemoryLease:
    """Implements `Lease`: on its own, or one of several (`InMemoryLeases.new_lease`)."""

    def __init__(self, leases: InMemoryLeases | None = None) -> None:
        self._leases = leases if leases is not None else InMemoryLeases()
        self._closed = False
        self.lapsed = False
        """Whether it was lost without `release`; `hold` says False once for it."""

    @property
    def seconds(self) -> float:
        return self._leases.seconds

    async def hold(self) -> bool:
        """Take or keep it; False once after it lapsed, as whoever coordinated must learn of that."""
        if self._closed or not self._leases.available:
            return False
        if self.lapsed:
            self.lapsed = False
            return False
        if self._leases.holder is None:
            self._leases.holder = self
        return self._leases.holder is self

    async def release(self) -> None:
        self.lapsed = False
        if self._leases.holder is self:
            self._leases.holder = None

    async def aclose(self) -> None:
        await self.release()
        self._closed = True
