"""The sessions that runners host, as whoever coordinates knows them.

Knows no sockets: those of a session may be at any service (`rooms`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from voicethere.adapters.store.records import SessionRecord
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode


def room_id_of(session_id: str) -> str:
    """A session's room. Derived, so that every service knows it, also after a restart."""
    return f"room-{session_id}"


class HostedSession(msgspec.Struct, frozen=True, kw_only=True):
    """What must be remembered of a session that a runner hosts."""

    session_id: str
    project_id: str
    build_id: str | None
    mode: Mode
    runner_id: str
    customer_context: dict[str, Any] | None = None


def hosted_session(record: SessionRecord) -> HostedSession:
    """What the database says of a session that is ready."""
    return HostedSession(
        session_id=record.id,
        project_id=record.project_id,
        build_id=record.build_id,
        mode=record.mode or Mode.VOICE,
        runner_id=record.runner_id or "",
        customer_context=record.customer_context,
    )


class Hosted:
    """One hosted session. Times are in seconds of a clock that never jumps, but for `ready_at`.

    `missing_since`: since when no linked runner says that it hosts the session. `agent` is what it runs
    (None: another coordinator assigned it), `ready_at` the wire time at which it was ready.
    """

    def __init__(
        self,
        session: HostedSession,
        *,
        opened_at: float,
        missing_since: float | None = None,
        claimed: bool = False,
        agent: DeployedAgent | None = None,
        ready_at: str | None = None,
    ) -> None:
        self.session = session
        self.opened_at = opened_at
        self.missing_since = missing_since
        self.claimed = claimed
        self.agent = agent
        self.ready_at = ready_at
        self.cancelled_at: float | None = None
        self.looking_at_claim = False
        self.settling = False
        self.told_to_end = False

    @property
    def session_id(self) -> str:
        return self.session.session_id

    @property
    def runner_id(self) -> str:
        return self.session.runner_id


class HostedSessions:
    """All of them, by session id."""

    def __init__(self) -> None:
        self._hosted: dict[str, Hosted] = {}

    def __iter__(self) -> Iterator[Hosted]:
        return iter(list(self._hosted.values()))

    def __len__(self) -> int:
        return len(self._hosted)

    def get(self, session_id: str) -> Hosted | None:
        """The session; None where it is not hosted (yet, or any more)."""
        return self._hosted.get(session_id)

    def of_runner(self, runner_id: str) -> list[Hosted]:
        """Those that this runner hosts, or hosted last."""
        return [hosted for hosted in self._hosted.values() if hosted.runner_id == runner_id]

    def of_project(self, project_id: str) -> list[Hosted]:
        """Those of this project."""
        return [hosted for hosted in self._hosted.values() if hosted.session.project_id == project_id]

    def add(self, hosted: Hosted) -> None:
        """It is hosted from now on."""
        self._hosted[hosted.session_id] = hosted

    def remove(self, session_id: str) -> Hosted | None:
        """It is over."""
        return self._hosted.pop(session_id, None)
