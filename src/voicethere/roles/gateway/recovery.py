"""What nobody else sees to: sessions that ended without a word of their own, prompts whose gateway is gone.

Every gateway looks for them, and each is applied once, whoever was first. Knows the database only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.core.conversation import (
    Applied,
    Composed,
    ConversationChange,
    SessionEnd,
    compose_end,
    compose_failures,
    ends_cleanly,
)
from voicethere.core.ports import Clock
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.gateway.here import Key
from voicethere.roles.gateway.outputs import Stored, as_stored
from voicethere.roles.gateway.settings import GatewaySettings
from voicethere.roles.unsaid import unsaid_envelope
from voicethere.wire.control_plane import SessionErrorRow

_MOST_AT_ONCE = 100
_PAGE = 100
_MOST_ERRORS = 20
"""Of a session that ended by itself: so many are told, the newest ones; all of them are stored."""

_log = structlog.get_logger(__name__)


class Recovery:
    """`look` now and then, and at news. `stored` hears what was stored by it."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: GatewaySettings,
        *,
        stored: Callable[[Sequence[Stored]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._stored = stored

    async def look(self) -> list[Key]:
        """Conclude sessions that are over; the conversations with a prompt for which nobody cares.

        Raises:
            StoreUnavailable: the database is away.
        """
        for held in await self._store.conversation_sessions_to_reconcile(_MOST_AT_ONCE):
            await self.conclude((held.project_id, held.conversation_id), held.session_id, held.session)
        before = iso_from_epoch(self._clock.now() - self._settings.orphan_seconds)
        waiting = await self._store.conversations_waiting(before=before, limit=_MOST_AT_ONCE)
        return [(record.project_id, record.id) for record in waiting]

    async def conclude(self, key: Key, session_id: str, session: SessionRecord | None) -> bool:
        """Tell the conversation how its session ended, as the database has it; False where that is not known
        yet, or somebody else has told it.

        `session` is None where it was deleted. sem-chat: "An error is a `session.error` frame and a
        `timeline.upsert` of kind `error` whose id is the error row's id".

        Raises:
            StoreUnavailable: the database is away.
        """
        if session is not None and session.ended_at is None:
            return False  # what ended it is not stored yet
        change = ConversationChange(
            project_id=key[0],
            conv_id=key[1],
            session_id=session_id,
            number=None,
            composed=await self._composed(session),
        )
        (applied,) = await self._store.apply_outputs([change])
        if not isinstance(applied, Applied):
            return False
        _log.info(
            "conversation_session_concluded",
            project_id=key[0],
            conversation_id=key[1],
            session_id=session_id,
            failed=session is None or session.failed,
        )
        self._stored([as_stored(change, applied)])
        return True

    async def _composed(self, session: SessionRecord | None) -> Composed:
        now_ms = round(self._clock.now() * 1000)
        if session is None:
            return compose_end(now_ms, SessionEnd.FAILED)
        clean = ends_cleanly(session.end_reason, failed=session.failed)
        end = SessionEnd.CLEAN if clean else SessionEnd.FAILED
        rows = await self._errors(session)
        failures = [(row.id, unsaid_envelope(session, row)) for row in rows]
        if session.failed and all(row.recoverable for row in rows):
            # What ended it is no row (a dead letter, or there were too many): it is told all the same.
            failures.append((f"{session.id}-failed", unsaid_envelope(session, None)))
        if not failures:
            return compose_end(now_ms, end)
        return compose_failures(failures, now_ms, session_end=end)

    async def _errors(self, session: SessionRecord) -> list[SessionErrorRow]:
        rows: list[SessionErrorRow] = []
        cursor: str | None = None
        while True:
            page = await self._store.session_errors(
                session.project_id, session.id, limit=_PAGE, cursor=cursor
            )
            rows = [*rows, *page.errors][-_MOST_ERRORS:]
            cursor = page.next_cursor
            if cursor is None:
                return rows
