"""What chat sessions say, on its way into the database and from there to the sockets.

Many outputs of many conversations are stored in one transaction (group commit); each is applied at most once,
whoever hears it and however often. What is dropped here is said again by its runner: nothing is acknowledged
before it is stored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec
import structlog

from voicethere.adapters.store.store import Store, StoreUnavailable
from voicethere.core.conversation import Applied, Composed, ConversationChange, Skipped, compose, number
from voicethere.core.ports import Clock
from voicethere.roles.gateway.here import Key
from voicethere.roles.gateway.settings import GatewaySettings
from voicethere.wire.relay import ChatOutput, ChatPassed, ChatStreamEnd, ChatStreamText

_RETRY_SECONDS = 0.25
_QUIET_SECONDS = 1800.0
_OVERHEAD_BYTES = 512

_log = structlog.get_logger(__name__)


class Stored(msgspec.Struct, frozen=True):
    """What a change came to: frames numbered from `first_seq` on. `ended`: the session is over by it."""

    key: Key
    session_id: str
    first_seq: int
    frames: list[str]
    ended: bool = False


class OutputsEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What is called: `stored` with what was stored here, `taken` with runner, session and the number up to
    which all of it is stored, `applied` with the seconds that an output took from the relay into the
    database."""

    stored: Callable[[Sequence[Stored]], None]
    taken: Callable[[str, str, int], None]
    applied: Callable[[float], None]


class _Waiting(msgspec.Struct, frozen=True):
    runner_id: str
    output: ChatOutput
    size: int
    heard_at: float


class _Session:
    def __init__(self, key: Key, heard_at: float) -> None:
        self.key = key
        self.heard_at = heard_at


class Outputs:
    """Call `heard`; `run` does the rest. `overflowed` counts what was dropped because too much waited."""

    def __init__(self, store: Store, clock: Clock, settings: GatewaySettings, events: OutputsEvents) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._events = events
        self._waiting: deque[_Waiting] = deque()
        self._known: set[tuple[str, int]] = set()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._sessions: dict[str, _Session] = {}
        self.overflowed = 0

    def care(self, session_id: str, key: Key) -> None:
        """The outputs of this session are of this conversation, and are to be stored here."""
        self._sessions[session_id] = _Session(key, self._clock.monotonic())

    def forget(self, session_id: str) -> None:
        """It is over; what is said again of it is stored all the same."""
        self._sessions.pop(session_id, None)

    def forget_quiet(self) -> None:
        """Forget sessions of which nothing was heard for long: another gateway has told their end."""
        since = self._clock.monotonic() - _QUIET_SECONDS
        for session_id in [name for name, session in self._sessions.items() if session.heard_at < since]:
            del self._sessions[session_id]

    def conversation(self, session_id: str) -> Key | None:
        """Whose session it is, where it is cared for here."""
        session = self._sessions.get(session_id)
        return None if session is None else session.key

    @property
    def sessions(self) -> int:
        """How many sessions are cared for here."""
        return len(self._sessions)

    def heard(self, runner_id: str, output: ChatOutput) -> None:
        """Store it soon: where the conversation is cared for, or nobody else seems to."""
        session = self._sessions.get(output.session_id)
        if session is None and not output.again:
            return
        if session is not None:
            session.heard_at = self._clock.monotonic()
        name = (output.session_id, output.number)
        if name in self._known:
            return
        size = _size(output)
        settings = self._settings
        if len(self._waiting) >= settings.backlog_outputs or self._bytes + size > settings.backlog_bytes:
            self.overflowed += 1
            return
        self._waiting.append(_Waiting(runner_id, output, size, self._clock.monotonic()))
        self._known.add(name)
        self._bytes += size
        self._changed.set()

    async def run(self) -> None:
        """Store what was heard, until cancelled."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            if len(self._waiting) < self._settings.batch_outputs:
                await asyncio.sleep(next_at - loop.time())
            next_at = loop.time() + self._settings.gather_seconds
            batch = self._next_batch()
            try:
                await self._store_batch(batch)
            except StoreUnavailable as problem:
                _log.warning("outputs_not_stored", reason=str(problem), outputs=len(batch))
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                _log.exception("outputs_not_stored", outputs=len(batch))
                await asyncio.sleep(_RETRY_SECONDS)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._settings.batch_outputs:
            waiting = self._waiting.popleft()
            self._bytes -= waiting.size
            self._known.discard((waiting.output.session_id, waiting.output.number))
            batch.append(waiting)
        return batch

    async def _store_batch(self, batch: Sequence[_Waiting]) -> None:
        now_ms = round(self._clock.now() * 1000)
        # By session and number: what is said again may have overtaken what is not.
        ordered = sorted(batch, key=lambda waiting: (waiting.output.session_id, waiting.output.number))
        changes: list[tuple[_Waiting, ConversationChange]] = []
        for session_id, of_session in groupby(ordered, key=lambda waiting: waiting.output.session_id):
            key = await self._key(session_id)
            for waiting in of_session:
                output = waiting.output
                if key is None:
                    # The conversation is gone, and its project perhaps: nobody will ever store it.
                    self._events.taken(waiting.runner_id, session_id, output.number)
                    continue
                changes.append((waiting, _change(key, output, now_ms)))
        results = await self._apply([change for _, change in changes])
        stored: list[Stored] = []
        for (waiting, change), result in zip(changes, results, strict=True):
            if isinstance(result, Applied):
                stored.append(as_stored(change, result))
                self._events.applied(self._clock.monotonic() - waiting.heard_at)
            self._acknowledge(waiting, result)
        self._events.stored(stored)

    async def _key(self, session_id: str) -> Key | None:
        known = self.conversation(session_id)
        if known is not None:
            return known
        record = await self._store.conversation_of_session(session_id)
        return None if record is None else (record.project_id, record.id)

    def _acknowledge(self, waiting: _Waiting, result: Applied | Skipped) -> None:
        output = waiting.output
        if isinstance(result, Applied):
            up_to = output.number
        elif result.applied_up_to is None:
            up_to = output.number  # a session that the conversation has done with
        elif output.again:
            up_to = result.applied_up_to  # who was first may have died before it could say so
        else:
            return
        if up_to:
            self._events.taken(waiting.runner_id, output.session_id, up_to)

    async def _apply(self, changes: list[ConversationChange]) -> list[Applied | Skipped]:
        if not changes:
            return []
        try:
            return list(await self._store.apply_outputs(changes))
        except StoreUnavailable:
            raise
        except Exception:
            # One that cannot be stored must not hold up all others, nor its own conversation.
            _log.exception("batch_not_stored", outputs=len(changes))
            return [await self._apply_alone(change) for change in changes]

    async def _apply_alone(self, change: ConversationChange) -> Applied | Skipped:
        try:
            return (await self._store.apply_outputs([change]))[0]
        except StoreUnavailable:
            raise
        except Exception:
            _log.exception("output_not_stored", session_id=change.session_id, output=change.number)
            ends = change.composed.session_end
            emptied = Composed(at_ms=change.composed.at_ms, ends_streams=ends is not None, session_end=ends)
            return (await self._store.apply_outputs([msgspec.structs.replace(change, composed=emptied)]))[0]


def as_stored(change: ConversationChange, applied: Applied) -> Stored:
    """The frames of a change that was applied."""
    frames = [frame.decode() for frame in number(change.conv_id, change.composed, applied)]
    return Stored(
        key=(change.project_id, change.conv_id),
        session_id=change.session_id,
        first_seq=applied.first_seq,
        frames=frames,
        ended=change.composed.session_end is not None,
    )


def _change(key: Key, output: ChatOutput, now_ms: int) -> ConversationChange:
    composed = compose(output.body, now_ms)
    if composed.refused is not None:
        _log.warning(
            "agents_message_refused",
            project_id=key[0],
            conversation_id=key[1],
            session_id=output.session_id,
            reason=composed.refused,
        )
    return ConversationChange(
        project_id=key[0],
        conv_id=key[1],
        session_id=output.session_id,
        number=output.number,
        composed=composed,
        prompts_taken=output.prompts,
    )


def _size(output: ChatOutput) -> int:
    match output.body:
        case ChatStreamText(delta=delta, cumulative=cumulative):
            return _OVERHEAD_BYTES + len(delta) + len(cumulative)
        case ChatStreamEnd(text=text):
            return _OVERHEAD_BYTES + len(text)
        case ChatPassed(payload=payload):
            return _OVERHEAD_BYTES + len(payload)
        case body:
            return _OVERHEAD_BYTES + len(getattr(body, "text", ""))
