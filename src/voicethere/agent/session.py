"""One session in the child: its messages strictly in order, one at a time.

Nothing is handled before `on_session_start` is done. After a failure nothing is, except the end.
Knows which message runs which hook; what a failure leads to is `failures`' part.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from voicethere.agent import contexts
from voicethere.agent.invocation import Hook, outcome_of, start_hook
from voicethere.wire.control_channel import SpeechEventType
from voicethere.wire.ipc import (
    DataChannelBinary,
    DataChannelMessage,
    FromChild,
    HandlerFinished,
    HandlerStarted,
    IdleTimeout,
    IdleTimeoutDone,
    SessionEnd,
    SessionStart,
    SessionStartAck,
    SpeechEventMessage,
)

LogFunction = Callable[[str, str, Mapping[str, Any] | None, str | None], None]
"""`(level, message, fields, session_id)`"""

SessionMessage = SpeechEventMessage | DataChannelMessage | DataChannelBinary | IdleTimeout | SessionEnd

MAX_WAITING_MESSAGES = 1000
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Of messages from the client that wait for a handler; more are dropped, with a line in the log."""


class FailurePolicy(Protocol):
    """What a session does when a hook raised."""

    async def hook_raised(self, session: Session, hook: str, error: BaseException) -> None: ...

    async def idle_hook_raised(
        self, session: Session, error: BaseException, answer: Callable[[str, str], None]
    ) -> None:
        """`answer(message, stack)` tells the runner."""


class Session:
    """`start` began it; `run` handles its messages until `on_session_end` is done.

    `on_end` is called when the end is reached, before that hook.
    """

    def __init__(
        self,
        start: SessionStart,
        *,
        hooks: Mapping[str, Hook],
        send: Callable[[FromChild], None],
        log: LogFunction,
        failures: FailurePolicy,
        on_end: Callable[[Session], None],
    ) -> None:
        self.id = start.session_id
        self.failed = False
        """A failure was found; its AgentError is sent or on its way."""
        self.running_hook: asyncio.Task[None] | None = None
        self._start = start
        self._common: dict[str, Any] = {
            "session_id": start.session_id,
            "project_id": start.project_id,
            "build_id": start.build_id,
            "env": MappingProxyType(start.env),
            "customer_context": start.customer_context,
        }
        self._hooks = hooks
        self._send = send
        self._log = log
        self._failures = failures
        self._on_end = on_end
        self._waiting: deque[SessionMessage] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._arrived = asyncio.Event()

    def accept(self, message: SessionMessage) -> None:
        """Queue a message from the runner."""
        size = _client_bytes(message)
        full = len(self._waiting) >= MAX_WAITING_MESSAGES or self._waiting_bytes + size > MAX_WAITING_BYTES
        if full and isinstance(message, (DataChannelMessage, DataChannelBinary)):
            self._dropped += 1
            return
        self._waiting.append(message)
        self._waiting_bytes += size
        self._arrived.set()

    async def run(self, agent_started: asyncio.Event) -> None:
        """Handle the session from `on_session_start` to `on_session_end`."""
        await agent_started.wait()
        await self._run_hook("on_session_start", contexts.SessionContext(**self._common))
        if not self.failed:
            self._send(SessionStartAck(session_id=self.id))
        while True:
            message = await self._next()
            if isinstance(message, SessionEnd):
                break
            if not self.failed:
                await self._handle(message)
        self._on_end(self)
        await self._run_hook("on_session_end", contexts.SessionContext(**self._common))

    def error_context(self, hook: str, error: BaseException) -> contexts.ErrorContext:
        """What `error_hook` is given."""
        return contexts.ErrorContext(**self._common, error=error, hook=hook)

    async def _next(self) -> SessionMessage:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._waiting_bytes -= _client_bytes(message)
        if self._dropped:
            words = f"{self._dropped} messages of the client were dropped: the handlers are too slow for them"
            self._log("warn", words, None, self.id)
            self._dropped = 0
        return message

    async def _handle(
        self, message: SpeechEventMessage | DataChannelMessage | DataChannelBinary | IdleTimeout
    ) -> None:
        match message:
            case SpeechEventMessage():
                event = contexts.SpeechEvent(type=message.event.value, text=message.text, error=message.error)
                await self._run_hook(
                    "on_speech_event", contexts.SpeechEventContext(**self._common, event=event)
                )
                if message.event is SpeechEventType.USER_SPEECH_FINAL and message.text and not self.failed:
                    context = contexts.UserSpeechFinalContext(**self._common, text=message.text)
                    await self._run_hook("on_user_speech_final", context)
            case DataChannelMessage():
                await self._run_hook(
                    "on_data_channel_message",
                    contexts.DataChannelMessageContext(
                        **self._common,
                        message=_json_or_text(message.raw),
                        raw=message.raw,
                        channel=message.channel,
                    ),
                )
            case DataChannelBinary():
                await self._run_hook(
                    "on_data_channel_binary",
                    contexts.DataChannelBinaryContext(
                        **self._common, data=message.data, channel=message.channel
                    ),
                )
            case IdleTimeout():
                await self._idle(message)

    async def _run_hook(self, name: str, context: Any) -> None:
        hook = self._hooks.get(name)
        if hook is None:
            return
        error = await self._outcome(name, hook, context, None)
        if error is not None:
            await self._failures.hook_raised(self, name, error)

    async def _idle(self, message: IdleTimeout) -> None:
        hook = self._hooks.get("on_idle_timeout")
        context = contexts.IdleTimeoutContext(
            **self._common, idle_timeout_seconds=message.idle_timeout_seconds
        )
        error = None
        if hook is not None:
            try:
                error = await self._outcome("on_idle_timeout", hook, context, message.grace_seconds)
            except TimeoutError:
                # The runner counts the same seconds and draws the conclusion.
                words = f"on_idle_timeout took longer than its {message.grace_seconds:g} s"
                self._log("error", words, None, self.id)
                return
        if error is None:
            self._send(IdleTimeoutDone(session_id=self.id))
        else:
            await self._failures.idle_hook_raised(
                self,
                error,
                lambda text, stack: self._send(IdleTimeoutDone(session_id=self.id, error=text, stack=stack)),
            )

    async def _outcome(
        self, name: str, hook: Hook, context: Any, timeout: float | None
    ) -> BaseException | None:
        self._send(HandlerStarted(session_id=self.id, hook=name))
        try:
            self.running_hook = start_hook(hook, context, self.id)
            return await outcome_of(self.running_hook, timeout)
        finally:
            self.running_hook = None
            self._send(HandlerFinished(session_id=self.id, hook=name))


def _client_bytes(message: SessionMessage) -> int:
    match message:
        case DataChannelMessage():
            return len(message.raw)
        case DataChannelBinary():
            return len(message.data)
        case _:
            return 0


def _json_or_text(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw
