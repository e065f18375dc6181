"""The chat gateway: conversations for clients, which are sessions of agents for everybody else.

No gateway owns a conversation: what sessions say is stored by whoever hears it, once, and what is stored is
sent to the sockets of all gateways. So any of them may die at any moment. Does not know HTTP (`api`) or
WebSockets (`sockets`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from voicethere.adapters.http.errors import HttpProblem
from voicethere.adapters.store.store import Store, StoreUnavailable
from voicethere.core.conversation import resend, snapshot
from voicethere.core.ports import Clock, RelayHub, RunnerAway
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.background import Background, cancelled
from voicethere.roles.gateway.access import Access, Caller
from voicethere.roles.gateway.here import ChatSocket, Key, SocketsHere
from voicethere.roles.gateway.outputs import Outputs, OutputsEvents, Stored
from voicethere.roles.gateway.prompts import Prompts, TooManyPrompts
from voicethere.roles.gateway.recovery import Recovery
from voicethere.roles.gateway.settings import GatewaySettings
from voicethere.wire.chat_api import IssuedConversation
from voicethere.wire.relay import (
    ChatFrames,
    ChatOutput,
    ChatPromptTaken,
    ChatTaken,
    SessionMoved,
    SessionOver,
)

__all__ = ["Gateway", "TooManyPrompts"]

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
_MOST_SHARED_CHARS = 256 * 1024
_TICK_SECONDS = 0.25
SNAPSHOTS_AT_ONCE = 4
_CHANGED_WITHIN_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class Gateway:
    """Lives in one process; `run` until `aclose`.

    `hub` is read by this gateway alone (`adapters.relay.shared` where it has others to serve).
    `tells_others`: there may be other gateways on the relay. `on_applied` hears the seconds that an output
    took from the relay into the database.

    Example:
        >>> gateway = Gateway(store, hub, access, clock, GatewaySettings())
        >>> running = asyncio.create_task(gateway.run())
    """

    def __init__(
        self,
        store: Store,
        hub: RelayHub,
        access: Access,
        clock: Clock,
        settings: GatewaySettings,
        *,
        tells_others: bool = True,
        on_applied: Callable[[float], None] | None = None,
    ) -> None:
        self.access = access
        self.settings = settings
        self._store = store
        self._hub = hub
        self._clock = clock
        self._tells_others = tells_others
        self._background = Background()
        self._closing = asyncio.Event()
        self._news = asyncio.Event()
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self.here = SocketsHere(clock, settings.sockets, gap_seconds=settings.gap_seconds)
        self.outputs = Outputs(
            store,
            clock,
            settings,
            OutputsEvents(stored=self._stored, taken=self._taken, applied=on_applied or _nobody_counts),
        )
        self._recovery = Recovery(store, clock, settings, stored=self._stored)
        self.prompts = Prompts(
            store,
            hub,
            clock,
            settings,
            background=self._background,
            care=self.outputs.care,
            over=self._recovery.conclude,
            stored=self._stored,
        )

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Serve the relay and the clock until `aclose`."""
        tasks = [
            asyncio.create_task(self._hear(), name="chat gateway relay"),
            asyncio.create_task(self._hear_notices(), name="chat gateway notices"),
            asyncio.create_task(self.outputs.run(), name="chat gateway outputs"),
            asyncio.create_task(self._tick_on(), name="chat gateway clock"),
            asyncio.create_task(self._recheck(), name="chat gateway keys"),
            asyncio.create_task(self._recover(), name="chat gateway recovery"),
            asyncio.create_task(self._sweep(), name="chat gateway sweep"),
            asyncio.create_task(self._closing.wait(), name="chat gateway closing"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled(tasks)
        for task in done:
            task.result()

    async def drain(self) -> None:
        """Close every socket, so that clients come back elsewhere; what sessions say goes on being stored."""
        self.here.close_all(GOING_AWAY, "this gateway ends: connect again")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.here.none_left.wait()

    async def aclose(self) -> None:
        """End `run`. Conversations and their sessions live on."""
        self._closing.set()
        self.here.close_all(GOING_AWAY, "this gateway ends: connect again")
        await self._background.aclose()

    # ------------------------------------------------------------------ what clients ask

    async def submit(
        self, caller: Caller, conv_id: str, text: str, customer_context: dict[str, Any] | None
    ) -> int:
        """Accept a prompt: the conversation's version with the user's message.

        Raises:
            UsageExceeded, TooManyPrompts, StoreUnavailable: nothing was accepted.
            LookupError: the project is gone.
        """
        return await self.prompts.submit(caller, conv_id, text, customer_context)

    async def timeline(self, project_id: str, conv_id: str) -> bytes:
        """The body of the snapshot; an empty one of a conversation that is not known.

        Raises:
            StoreUnavailable: the database is away.
        """
        async with self._snapshots:  # each may take many times its 16 MiB while it is made
            found = await self._store.timeline(project_id, conv_id)
            return snapshot(conv_id, found.version, found.entities, round(self._clock.now() * 1000))

    async def issue(self, project_id: str) -> IssuedConversation:
        """A new conversation with an id that nobody can guess.

        Raises:
            LookupError: there is no such project.
            StoreUnavailable: the database is away.
        """
        record = await self._store.issue_conversation(project_id, seconds=self.settings.issued_seconds)
        return IssuedConversation(conv_id=record.id, expires_at=record.expires_at or "")

    async def is_issued(self, project_id: str, conv_id: str) -> bool:
        """Whether the gateway issued this id, and it is still good.

        Raises:
            StoreUnavailable: the database is away.
        """
        record = await self._store.find_conversation(project_id, conv_id)
        if record is None or not record.issued:
            return False
        return record.expires_at is None or record.expires_at > iso_from_epoch(self._clock.now())

    def open_socket(self, caller: Caller, conv_id: str) -> ChatSocket:
        """A socket on the conversation; `here.leave` it in any case.

        Raises:
            HttpProblem: 429, 503.
        """
        return self.here.open(caller, conv_id)

    async def catch_up(self, socket: ChatSocket) -> list[str]:
        """What tells a socket how its conversation stands: latest entities and ended streams, without `seq`.

        sem-chat: "the gateway sends the conversation's latest entities again when a socket opens".

        Raises:
            StoreUnavailable: the database is away.
        """
        project_id, conv_id = socket.key
        record = await self._store.find_conversation(project_id, conv_id)
        # After the record: what is told may be newer than the number says, never older.
        latest = await self._store.latest_entities(project_id, conv_id, self.settings.resent_entities)
        self.here.told(socket, 0 if record is None else record.seq)
        if record is not None and record.session_id is not None:
            self.outputs.care(record.session_id, socket.key)
        finished = () if record is None else record.finished
        frames = [frame.decode() for frame in resend(conv_id, latest, finished)]
        room = self.settings.resent_bytes
        for index in range(len(frames) - 1, -1, -1):
            room -= len(frames[index])
            if room < 0:
                return frames[index + 1 :]
        return frames

    # ------------------------------------------------------------------ what is stored

    def _stored(self, stored: Sequence[Stored]) -> None:
        for one in stored:
            self.here.deliver(one.key, one.first_seq, one.frames)
            if one.ended:
                self.outputs.forget(one.session_id)
                self.prompts.session_ended(one.key)
        if self._tells_others:
            for notice in _notices(stored):
                self._background.spawn(self._hub.publish(notice), name="chat frames")

    def _taken(self, runner_id: str, session_id: str, number: int) -> None:
        self._background.spawn(
            self._say(runner_id, ChatTaken(session_id=session_id, number=number)), name="chat taken"
        )

    async def _say(self, runner_id: str, message: ChatTaken) -> None:
        try:
            await self._hub.send(runner_id, message)
        except RunnerAway:
            _log.debug("runner_away", runner_id=runner_id)  # it says what it said again

    # ------------------------------------------------------------------ the relay

    async def _hear(self) -> None:
        async for runner_id, message in self._hub.messages():
            if isinstance(message, ChatOutput):
                self.outputs.heard(runner_id, message)
            elif isinstance(message, ChatPromptTaken):
                self.prompts.taken(message.session_id, message.number)

    async def _hear_notices(self) -> None:
        async for notice in self._hub.notices():
            match notice:
                case ChatFrames(project_id=project_id, conversation_id=conv_id):
                    self.here.deliver((project_id, conv_id), notice.first_seq, notice.frames)
                case SessionMoved(session_id=session_id):
                    self.prompts.session_moved(session_id)
                case SessionOver(session_id=session_id):
                    self.prompts.session_moved(session_id)
                    if self.outputs.conversation(session_id) is not None:
                        self._news.set()

    # ------------------------------------------------------------------ the clock

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.here.tick()

    async def _recover(self) -> None:
        while True:
            self._news.clear()
            self.outputs.forget_quiet()
            try:
                for key in await self._recovery.look():
                    self.prompts.care_for(key)
            except StoreUnavailable as problem:
                _log.warning("recovery_waits_for_the_database", reason=str(problem))
            except Exception:
                _log.exception("recovery_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.recover_seconds):
                    await self._news.wait()

    async def _sweep(self) -> None:
        """What gateways tell each other may be lost on its way, and of the last frame nobody sees a gap."""
        while self._tells_others:
            await asyncio.sleep(self.settings.sweep_seconds)
            since = iso_from_epoch(self._clock.now() - _CHANGED_WITHIN_SECONDS)
            try:
                for project_id in self.here.projects():
                    changed = await self._store.conversations_changed(project_id, since=since)
                    if behind := self.here.compare(project_id, changed):
                        _log.warning("frames_were_lost", project_id=project_id, conversations=behind)
            except StoreUnavailable as problem:
                _log.warning("frames_not_compared", reason=str(problem))
            except Exception:
                _log.exception("frames_not_compared")
        await self._closing.wait()

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(self.settings.recheck_seconds)
            try:
                await self.recheck()
            except StoreUnavailable as problem:
                _log.warning("keys_not_rechecked", reason=str(problem))
            except Exception:
                _log.exception("keys_not_rechecked")

    async def recheck(self) -> None:
        """Close the sockets of keys and projects that are good no more.

        Raises:
            StoreUnavailable: the database is away.
        """
        sockets: dict[Any, list[ChatSocket]] = {}
        for socket in self.here:
            sockets.setdefault(socket.caller.credentials, []).append(socket)
        for credentials, same in sockets.items():
            try:
                await self.access.check(credentials)
            except HttpProblem as problem:
                _log.info("chat_sockets_closed", code=problem.code.value, sockets=len(same))
                for socket in same:
                    socket.queue.close(POLICY_VIOLATION, problem.message[:100])


def _nobody_counts(_: float) -> None:
    pass


def _notices(stored: Sequence[Stored]) -> list[ChatFrames]:
    """Few of them, none too large: frames of one conversation that follow each other go together."""
    notices: list[ChatFrames] = []
    chars: dict[Key, int] = {}
    latest: dict[Key, ChatFrames] = {}
    for one in stored:
        for seq, frame in enumerate(one.frames, one.first_seq):
            notice = latest.get(one.key)
            if (
                notice is None
                or notice.first_seq + len(notice.frames) != seq
                or chars[one.key] + len(frame) > _MOST_SHARED_CHARS
            ):
                notice = latest[one.key] = ChatFrames(
                    project_id=one.key[0], conversation_id=one.key[1], first_seq=seq, frames=[]
                )
                notices.append(notice)
                chars[one.key] = 0
            notice.frames.append(frame)
            chars[one.key] += len(frame)
    return notices
