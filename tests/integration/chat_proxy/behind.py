"""A chat client that reaches a real gateway through a bad network, and the truth that it must come to."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.e2e.waiting import eventually
from voicethere.chat import (
    ChatErrorRecord,
    ChatStore,
    ChatTimings,
    ConversationManager,
    EventLog,
    Reconnecting,
    selectors,
)
from voicethere.testing.bad_network import BadNetwork, Fault, How, Toward
from voicethere.testing.chat_changes import until_holds

SECONDS = 30.0
SOON = Reconnecting(first=0.02, longest=0.1)


class Behind:
    """One conversation of a manager behind a network. `direct` asks the gateway past the network."""

    def __init__(
        self, base_url: str, network: BadNetwork, direct: httpx.AsyncClient, conv_id: str, **options: Any
    ) -> None:
        self.network = network
        self.conv_id = conv_id
        self.path = urlsplit(base_url).path
        self.store = ChatStore()
        self.log = EventLog()
        self.phases: Counter[str] = Counter()
        self._direct = direct
        self._base_url = base_url
        options.setdefault("reconnect", SOON)
        self.manager = ConversationManager(self.store, network.through(base_url), log=self.log, **options)
        self.log.subscribe(
            lambda entry: self.phases.update([entry.type]) if entry.family == "lifecycle" else None, conv_id
        )

    # ------------------------------------------------------------------ places

    def before(self, request: str, plus: int = 0, how: How = How.RESET) -> Fault:
        """So many bytes into a request such as `GET /ws`."""
        method, _, path = request.partition(" ")
        at = f"{method} {self.path}{path}".encode()
        return Fault(toward=Toward.SERVER, at=at, plus=plus, how=how)

    @staticmethod
    def after(at: bytes, plus: int = 0, how: How = How.RESET) -> Fault:
        """So many bytes behind where the gateway begins to say this."""
        return Fault(toward=Toward.CLIENT, at=at, plus=plus, how=how)

    # ------------------------------------------------------------------ what the client holds

    @property
    def status(self) -> str:
        return selectors.select_connection_status(self.store.state, self.conv_id).value

    @property
    def is_streaming(self) -> bool:
        return selectors.select_is_streaming(self.store.state, self.conv_id)

    @property
    def errors(self) -> tuple[ChatErrorRecord, ...]:
        return selectors.select_error_history(self.store.state, self.conv_id)

    @property
    def kinds(self) -> list[str]:
        """Kind and stage of each record, and how often it was repeated where it was."""
        kinds = []
        for error in self.errors:
            repeats = (error.details or {}).get("repeats")
            kinds.append(f"{error.kind}/{error.stage}" + (f" +{repeats}" if repeats else ""))
        return kinds

    @property
    def timeline(self) -> list[tuple[Any, ...]]:
        """What a timeline is made of: id, kind, times, properties; in order."""
        return [
            (entity.id, entity.kind, entity.created_at, entity.updated_at, dict(entity.props))
            for entity in selectors.select_timeline_entities(self.store.state, self.conv_id)
        ]

    @property
    def texts(self) -> list[str]:
        """What the messages say, in order."""
        return [props["content"] for _, kind, _, _, props in self.timeline if kind == "message"]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds: looked at after each change of the store."""
        await until_holds(self.store, condition, seconds=SECONDS)

    # ------------------------------------------------------------------ the truth

    async def snapshot(self) -> dict[str, Any]:
        """The gateway's own timeline."""
        answer = await self._direct.get(
            self._base_url + "/api/timeline", params={"conv_id": self.conv_id}, timeout=SECONDS
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def truth(self) -> list[tuple[Any, ...]]:
        """The same as `timeline`, as the gateway has it."""
        return [
            (entity["id"], entity["kind"], entity["createdAtMs"], entity["updatedAtMs"], entity["props"])
            for entity in (await self.snapshot())["entities"]
        ]

    async def said(self, text: str) -> None:
        """Wait until the gateway's timeline holds this message, complete."""

        async def looked() -> list[str]:
            return [
                props["content"]
                for _, kind, _, _, props in await self.truth()
                if kind == "message" and not props["streaming"]
            ]

        await eventually(f"the message {text!r}", looked, lambda texts: text in texts)

    async def failed(self) -> None:
        """Wait until the gateway's timeline holds an error."""

        async def kinds() -> list[str]:
            return [kind for _, kind, _, _, _ in await self.truth()]

        await eventually("an error in the timeline", kinds, lambda kinds: "error" in kinds)

    async def say(self, text: str) -> None:
        """A prompt that goes past the network."""
        answer = await self._direct.post(
            self._base_url + "/chat", json={"prompt": text, "conv_id": self.conv_id}, timeout=SECONDS
        )
        assert answer.status_code == 202, answer.text

    async def goodbye(self) -> None:
        """End the session, and wait until the client is where the gateway is."""
        name = uuid.uuid4().hex[:8]
        await self.say(f"goodbye {name}")
        await self.said(f"Goodbye {name}.")
        await self.same_as_gateway()

    async def same_as_gateway(self) -> None:
        """The client is connected, and its timeline is the gateway's, once what is on its way has come."""

        async def differ() -> str:
            truth = await self.truth()
            if self.status != "connected":
                return f"the client is {self.status}: {self.kinds}"
            if self.timeline != truth:
                return f"{self.timeline}\nis not\n{truth}"
            # A stream that begins runs before it has a message, and a last one may come late.
            streams = [entity[0] for entity in self.timeline if entity[4].get("streaming") is True]
            return "" if self.is_streaming is bool(streams) else f"it says that it streams, and {streams} do"

        await eventually("the same timeline", differ, lambda difference: not difference)


@asynccontextmanager
async def behind(
    base_url: str, *, seed: int = 0, conv_id: str | None = None, **options: Any
) -> AsyncIterator[Behind]:
    """A client, not connected yet; `options` are the manager's."""
    async with (
        BadNetwork.before(base_url, seed=seed) as network,
        # Tests may take their time between two requests: no connection is kept that could be too old then.
        httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0)) as direct,
    ):
        made = Behind(base_url, network, direct, conv_id or f"c-{uuid.uuid4().hex}", **options)
        async with made.manager:
            yield made


def timings(seconds: float) -> ChatTimings:
    """Times for tests in which anything may say nothing: so long is waited for it."""
    return ChatTimings(
        open_wait=0.2,
        open_timeout=seconds,
        snapshot_timeout=seconds,
        prompt_timeout=seconds,
        ping_interval=seconds,
    )
