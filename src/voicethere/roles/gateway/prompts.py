"""Prompts on their way from a client into a session: accepted once they are stored, then seen to until taken.

The first one starts the conversation's session. Knows sessions as rows; who hosts them is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from voicethere.adapters.store.records import PendingPrompt, TooManyPrompts
from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.conversation import MAX_PROMPT_SESSIONS, compose_prompt, number_prompt
from voicethere.core.ports import Clock, RelayHub, RunnerAway
from voicethere.core.usage import check_monthly_usage, month_begun
from voicethere.roles.background import Background
from voicethere.roles.gateway.access import Caller
from voicethere.roles.gateway.given_up import give_up_prompts
from voicethere.roles.gateway.here import Key
from voicethere.roles.gateway.outputs import Stored
from voicethere.roles.gateway.settings import GatewaySettings
from voicethere.wire.relay import ChatPrompt, SessionWanted
from voicethere.wire.session_api import ProvisioningStatus

__all__ = ["Prompts", "TooManyPrompts"]

_SEEN_EVERY_SECONDS = 30.0
_MOST_PATIENCE = 16

_log = structlog.get_logger(__name__)


class _Care:
    """One conversation that has prompts which no session has taken."""

    def __init__(self, customer_context: dict[str, Any] | None) -> None:
        self.customer_context = customer_context
        self.changed = asyncio.Event()
        self.seen_at: float | None = None
        self.patience = 1
        """How many times longer than usual it is not looked, while its session waits in the line."""
        self.said_at: dict[tuple[str, int], float] = {}
        """When each prompt was last said to its session."""


class Prompts:
    """`submit` what users say; `taken`, `session_moved` and `session_ended` are news. `accepted` counts the
    prompts that were accepted here.

    `care` hears of each session whose prompts are seen to here, `over` concludes one that has ended, `stored`
    sends what was stored to sockets.
    """

    def __init__(
        self,
        store: Store,
        hub: RelayHub,
        clock: Clock,
        settings: GatewaySettings,
        *,
        background: Background,
        care: Callable[[str, Key], None],
        over: Callable[[Key, str, SessionRecord | None], Awaitable[bool]],
        stored: Callable[[Sequence[Stored]], None],
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._settings = settings
        self._background = background
        self._care = care
        self._over = over
        self._stored = stored
        self._cares: dict[Key, _Care] = {}
        self._keys: dict[str, Key] = {}
        self.accepted = 0

    @property
    def waiting(self) -> int:
        """Conversations with prompts that no session has taken yet, as far as they are seen to here."""
        return len(self._cares)

    async def submit(
        self, caller: Caller, conv_id: str, text: str, customer_context: dict[str, Any] | None
    ) -> int:
        """Store a prompt and its echo; the conversation's version with it.

        sem-chat: "echoes each accepted prompt as a `role: "user"` message before anything of the agent's".

        Raises:
            UsageExceeded, TooManyPrompts, StoreUnavailable: nothing was accepted.
            LookupError: the project is gone.
        """
        project_id = caller.project_id
        if caller.monthly_session_limit:
            record = await self._store.find_conversation(project_id, conv_id)
            if record is None or record.session_id is None:
                now = self._clock.now()
                made = await self._store.count_sessions(project_id, since=month_begun(now))
                check_monthly_usage(caller.monthly_session_limit, made, now)
        message_id = f"prompt-{uuid.uuid4().hex}"
        echo = compose_prompt(text, message_id, round(self._clock.now() * 1000))
        accepted = await self._store.accept_prompt(project_id, conv_id, text, echo)
        self.accepted += 1
        frames = number_prompt(conv_id, echo, version=accepted.version, seq=accepted.seq)
        key = (project_id, conv_id)
        _log.info(
            "prompt_accepted",
            project_id=project_id,
            conversation_id=conv_id,
            session_id=accepted.prompt.session_id,
            key_id=caller.key_id,
        )
        self._stored(
            [
                Stored(
                    key=key,
                    session_id=accepted.prompt.session_id or "",
                    first_seq=accepted.seq,
                    frames=[frame.decode() for frame in frames],
                )
            ]
        )
        self.care_for(key, customer_context)
        return accepted.version

    def care_for(self, key: Key, customer_context: dict[str, Any] | None = None) -> None:
        """See to the conversation's prompts until none waits."""
        care = self._cares.get(key)
        if care is None:
            care = self._cares[key] = _Care(customer_context)
            self._background.spawn(self._see_to(key, care), name="chat prompts")
        care.changed.set()

    def taken(self, session_id: str, up_to: int) -> None:
        """The session has taken its prompts up to this number."""
        if session_id in self._keys:
            self._background.spawn(self._taken(session_id, up_to), name="chat prompts taken")

    def session_moved(self, session_id: str) -> None:
        """News of the session."""
        key = self._keys.get(session_id)
        if key is not None:
            self.session_ended(key)

    def session_ended(self, key: Key) -> None:
        """The conversation's session is over: prompts that it has not taken are for the next one."""
        care = self._cares.get(key)
        if care is not None:
            care.changed.set()

    async def _taken(self, session_id: str, up_to: int) -> None:
        try:
            await self._store.prompts_taken(session_id, up_to)
        except StoreUnavailable as problem:
            # The prompt is said again, and answered again.
            _log.warning("taken_prompts_not_noted", session_id=session_id, reason=str(problem))
            return
        self.session_moved(session_id)

    async def _see_to(self, key: Key, care: _Care) -> None:
        sessions: set[str] = set()
        try:
            while True:
                care.changed.clear()
                seconds: float | None = self._settings.look_seconds
                try:
                    seconds = await self._step(key, care, sessions)
                except StoreUnavailable as problem:
                    _log.warning(
                        "prompts_wait_for_the_database",
                        project_id=key[0],
                        conversation_id=key[1],
                        reason=str(problem),
                    )
                if seconds is None and not care.changed.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await care.changed.wait()
                        care.patience = 1
        except LookupError:
            _log.info("conversation_gone", project_id=key[0], conversation_id=key[1])
        finally:
            del self._cares[key]
            for session_id in sessions:
                self._keys.pop(session_id, None)

    async def _step(self, key: Key, care: _Care, sessions: set[str]) -> float | None:
        """Do what can be done about the prompts that wait; after how many seconds to look again if there are
        no news, None where no prompt waits."""
        soon = self._settings.look_seconds
        pending = await self._store.pending_prompts(*key)
        if not pending:
            return None
        session_id = pending[0].session_id
        if session_id is None:
            if any(prompt.attempts >= MAX_PROMPT_SESSIONS for prompt in pending):
                if (told := await give_up_prompts(self._store, self._clock, key)) is not None:
                    self._stored([told])
                care.changed.set()
                return soon
            begun = await self._begin(key, care)
            if begun is None:
                return soon
            session_id = begun
        self._keys[session_id] = key
        sessions.add(session_id)
        self._care(session_id, key)
        session = await self._store.get_session(session_id)
        if session is None or session.failed or session.ended_at is not None:
            if await self._over(key, session_id, session):
                care.changed.set()
        elif session.status is ProvisioningStatus.READY and session.runner_id is not None:
            await self._say(session.runner_id, session_id, pending, care)
        elif session.status is ProvisioningStatus.WAITING:
            await self._keep_its_place(session_id, care)
            # There may be very many of them, and news come when it is their turn.
            care.patience = min(2 * care.patience, _MOST_PATIENCE)
            return soon * care.patience
        return soon

    async def _begin(self, key: Key, care: _Care) -> str | None:
        """The conversation's session, begun by this; None where somebody else was first."""
        record = await self._store.begin_conversation_session(
            *key,
            session_id=str(uuid.uuid4()),
            customer_context=care.customer_context,
            wait_for_capacity=True,
        )
        if record is None:
            care.changed.set()
            return None
        _log.info(
            "conversation_session_begun",
            project_id=key[0],
            conversation_id=key[1],
            session_id=record.id,
        )
        await self._hub.publish(SessionWanted(session_id=record.id))
        return record.id

    async def _say(
        self, runner_id: str, session_id: str, pending: Sequence[PendingPrompt], care: _Care
    ) -> None:
        now = self._clock.monotonic()
        again = now - self._settings.again_seconds
        try:
            for prompt in pending:
                number = prompt.session_number
                if prompt.session_id != session_id or number is None:
                    continue
                if care.said_at.get((session_id, number), again) > again:
                    continue
                await self._hub.send(
                    runner_id, ChatPrompt(session_id=session_id, number=number, text=prompt.text)
                )
                care.said_at[session_id, number] = now
        except RunnerAway:
            _log.info("prompts_wait_for_the_runner", session_id=session_id, runner_id=runner_id)

    async def _keep_its_place(self, session_id: str, care: _Care) -> None:
        """A session in the waiting line is one that somebody asks for."""
        now = self._clock.monotonic()
        if care.seen_at is None or now - care.seen_at >= _SEEN_EVERY_SECONDS:
            care.seen_at = now
            await self._store.session_seen(session_id)
