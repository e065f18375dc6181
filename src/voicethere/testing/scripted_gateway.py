"""The gateways' end of chat sessions, for tests of runners: stores what sessions say, and gives them prompts.

Works on any `RelayHub`. It keeps no conversations and makes no frames; like real gateways it stores only the
output behind the last one that is stored, and says a prompt again until it is taken.

Example:
    >>> gateway = ScriptedGateway(hub)
    >>> reading = asyncio.create_task(gateway.run())
    >>> await gateway.prompt("s-1", "hello")
    >>> await gateway.until(lambda: ChatMessage(speech_id="s-1-1", text="Hi.") in gateway.said("s-1"))
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeVar

from voicethere.core.ports import RelayHub, RunnerAway
from voicethere.wire.relay import (
    ChatBody,
    ChatOutput,
    ChatPrompt,
    ChatPromptTaken,
    ChatTaken,
    RunnerHello,
    SessionAccepted,
    ToService,
)

Body = TypeVar("Body")


class ScriptedGateway:
    """While it is `away` it hears nothing. `heard` are all messages of runners, while it is not.

    `saying` counts how often each output of a session was said, heard or not. Gateways that were made
    `beside` one have what is stored in common with it. `hub` may be replaced by the next one on the relay.
    """

    def __init__(self, hub: RelayHub, *, beside: ScriptedGateway | None = None) -> None:
        self.away = False
        self.heard: list[ToService] = []
        self.saying: Counter[tuple[str, int]] = Counter()
        self.hub = hub
        self._runners: dict[str, str] = {}
        self._stored: defaultdict[str, list[ChatBody]] = (
            defaultdict(list) if beside is None else beside._stored
        )
        self._prompts: defaultdict[str, list[str]] = defaultdict(list)
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Read the hub to its end; for tests in which nobody else does."""
        async for runner_id, message in self.hub.messages():
            await self.take(runner_id, message)

    async def take(self, runner_id: str, message: ToService | None) -> None:
        """One message of a runner; None: its link is gone."""
        if message is None:
            return
        if isinstance(message, ChatOutput):
            self.saying[message.session_id, message.number] += 1
        if not self.away:
            self.heard.append(message)
            await self._answer(runner_id, message)
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, runner_id: str, message: ToService) -> None:
        match message:
            case RunnerHello(sessions=sessions):
                for session_id in sessions:
                    self._runners[session_id] = runner_id
            case SessionAccepted(session_id=session_id):
                self._runners[session_id] = runner_id
                await self.say_prompts_again(session_id)
            case ChatOutput(session_id=session_id, number=number, body=body):
                self._runners[session_id] = runner_id
                stored = self._stored[session_id]
                if number == len(stored) + 1:
                    stored.append(body)
                with contextlib.suppress(RunnerAway):
                    await self.hub.send(runner_id, ChatTaken(session_id=session_id, number=len(stored)))
            case ChatPromptTaken(session_id=session_id, number=number):
                self._taken[session_id] = max(self._taken[session_id], number)

    # ------------------------------------------------------------------ what a test does

    async def prompt(self, session_id: str, text: str) -> None:
        """A user's prompt: sent now, where the session's runner is known."""
        self._prompts[session_id].append(text)
        await self.say_prompts_again(session_id)

    async def say_prompts_again(self, session_id: str) -> None:
        """Send every prompt that was not taken."""
        for number in range(self._taken[session_id] + 1, len(self._prompts[session_id]) + 1):
            await self.say_prompt(session_id, number)

    async def say_prompt(self, session_id: str, number: int) -> None:
        """Send the session's prompt of this number, taken or not."""
        runner_id = self._runners.get(session_id)
        if runner_id is not None:
            text = self._prompts[session_id][number - 1]
            with contextlib.suppress(RunnerAway):
                await self.hub.send(runner_id, ChatPrompt(session_id=session_id, number=number, text=text))

    def prompts_taken(self, session_id: str) -> int:
        """Up to which number its prompts were taken."""
        return self._taken[session_id]

    def said(self, session_id: str) -> list[ChatBody]:
        """What is stored of the session, in order."""
        return list(self._stored[session_id])

    def of(self, session_id: str, kind: type[Body]) -> list[Body]:
        """What is stored of the session of one kind."""
        return [body for body in self._stored[session_id] if isinstance(body, kind)]

    async def until(self, what: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Return once `what` is so; it is looked at after each message.

        Raises:
            TimeoutError: it was not so in time.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(what)
